#!/bin/sh
# Installs those Debian packages of a list that are missing, and says which: install.sh [--check] [LIST]. The list is
# packages.txt if none is named. Does nothing, in well under a second, if none is missing. With --check it only says which
# are, and fails if any is.
set -eu
export DEBIAN_FRONTEND=noninteractive

check=
[ "${1-}" != --check ] || { check=1 && shift; }
wanted=$(sed 's/#.*//' "$(dirname "$0")/${1-packages.txt}")

# dpkg-query fails for names it has never heard of, and leaves them out: they are missing too.
# shellcheck disable=SC2086
installed=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' $wanted 2>/dev/null || :)"
missing=
for name in $wanted; do
	case $installed in
	*" installed:$name "*) ;;
	*) missing="$missing $name" ;;
	esac
done
[ -n "$missing" ] || exit 0

echo "missing Debian packages:$missing" >&2
[ -z "$check" ] || exit 1
if [ "$(id -u)" -ne 0 ]; then
	echo "run as root: $0" >&2
	exit 1
fi

# The package lists are fetched only if those at hand do not do: absent on a fresh system, or naming versions that the
# mirror has already replaced.
# shellcheck disable=SC2086
install() { apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $missing; }
install >/dev/null 2>&1 || {
	apt-get update -qq
	install
}
