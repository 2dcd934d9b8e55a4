#!/bin/sh
# qemu-img resize of a raw image by a relative size does not add to the size that the file has.
#
# Version: qemu-utils 1:7.2+dfsg-7+deb12u* of Debian 12 (qemu-img 7.2).
# Behaviour: a raw image whose size is no multiple of 512 bytes is taken for one of the next multiple, and "+N" is added
# to that. Who adds the 24 bytes that a file of 1000 bytes lacks to 1024 gets 1048, which is no multiple of 512 either;
# "+0" makes it 1024.
# What follows for whoever prints a remedy: name the whole size, not the difference.
#
# Needs: apt-get with Debian 12's packages, dpkg-deb. Installs nothing.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
version=$(apt-cache madison qemu-utils | awk '$3 ~ /^1:7\.2\+dfsg-7\+deb12u/ {print $3; exit}')
[ -n "$version" ] || { echo "no qemu-utils 7.2 of Debian 12 to be had" >&2; exit 1; }
for package in "qemu-utils=$version" libaio1 liburing2 libnuma1; do
	apt-get -o APT::Sandbox::User=root download -q "$package" >/dev/null
done
for deb in *.deb; do dpkg-deb -x "$deb" root; done
qemu_img() { LD_LIBRARY_PATH="$dir/root/usr/lib/x86_64-linux-gnu:$dir/root/lib/x86_64-linux-gnu" root/usr/bin/qemu-img "$@"; }

qemu_img --version | head -n 1
size() {
	truncate -s 1000 image
	qemu_img resize -q -f raw image "$1"
	stat -c %s image
}
relative=$(size +24)
nothing=$(size +0)
absolute=$(size 1024)
echo "1000 bytes, resized by +24: $relative bytes; by +0: $nothing bytes; to 1024: $absolute bytes"
[ "$relative" = 1048 ] && [ "$nothing" = 1024 ] && [ "$absolute" = 1024 ]
