//go:build linux

package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// lifeOfRPM runs in a mount namespace of its own, on a private copy of this computer's root: rpm runs scripts in the
// root that it installs into, so there has to be a shell. $1 is an empty directory, $2 the package, $3 a later one.
// What of our own .deb is installed here is out of the way, and systemctl writes down what it is asked.
const lifeOfRPM = `set -eu
root=$1/root
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/run/systemd/system" "$root/packages" "$root/etc/libvirt/qemu"
rm -rf "$root/usr/bin/duet" "$root/usr/sbin/duetd" "$root/var/lib/duet" "$root/etc/sysconfig/duetd"
rm -f "$root"/etc/libvirt/qemu/*.xml
cp "$2" "$root/packages/first.rpm"
cp "$3" "$root/packages/second.rpm"
printf '#!/bin/sh\necho "$@" >>/calls\ncase $* in *is-active*) [ -e /active ] ;; esac\n' >"$root/bin/systemctl"
chmod 755 "$root/bin/systemctl"

# said holds what rpm said, calls what systemd was asked meanwhile.
rpm() {
	: >"$root/calls"
	LC_ALL=C command rpm --root "$root" --define '_dbpath /var/lib/rpm' --nosignature "$@" >"$root/said" 2>&1
}
must() { rpm "$@" || fail "rpm $* failed"; }
fail() { echo "$*"; echo "rpm said:"; cat "$root/said"; echo "systemd was asked:"; cat "$root/calls"; exit 1; }
asked() { grep -qx -e "$1" "$root/calls" || fail "systemd was not asked: $1"; }
here() { for f; do [ -e "$root$f" ] || fail "$f is not there"; done; }
gone() { for f; do [ ! -e "$root$f" ] || fail "$f is still there"; done; }

must --initdb
must --nodeps --install "$root/packages/first.rpm"
asked daemon-reload
! grep -q 'start\|enable' "$root/calls" || fail "the installation started something"
here /usr/bin/duet /usr/sbin/duetd /etc/sysconfig/duetd /usr/share/duet/duet.cil \
	/usr/lib/systemd/system/duetd.service /usr/lib/systemd/system/duetd-witness.service
grep -qx 'EnvironmentFile=-/etc/sysconfig/duetd' "$root/usr/lib/systemd/system/duetd.service" || fail "the unit has other options"
[ "$(chroot "$root" duet --version)" = "duet $(command rpm -qp --nosignature --qf '%{VERSION}' "$2" 2>/dev/null)" ] ||
	fail "duet says $(chroot "$root" duet --version)"
must --verify --nodeps duet

# The admin edits options, and has a VM and the data of a node.
echo DUETD_OPTS=--sleepy >>"$root/etc/sysconfig/duetd"
touch "$root/active"
echo "<host transport='unix' socket='/run/duet/volumes/web01/vda.sock'/>" >"$root/etc/libvirt/qemu/web01.xml"
echo "<source file='/srv/plain.img'/>" >"$root/etc/libvirt/qemu/plain.xml"
mkdir -p "$root/var/lib/duet/pki" "$root/var/lib/duet/volumes/web01"
touch "$root/var/lib/duet/pki/ca.key" "$root/var/lib/duet/volumes/web01/vda.raw"

must --nodeps --upgrade "$root/packages/second.rpm"
asked 'try-restart duet-guard.service duet-apps.service duetd.service duetd-witness.service'
! grep -q '^stop' "$root/calls" || fail "the upgrade stopped something"
grep -q sleepy "$root/etc/sysconfig/duetd" || fail "the upgrade changed what is the admin's"

! rpm --erase duet || fail "it was removed from under a VM"
grep -q ' web01 ' "$root/said" || fail "the refusal does not name the VM"
! grep -q plain "$root/said" || fail "the refusal names another VM"
here /usr/sbin/duetd /usr/lib/systemd/system/duetd.service

rm "$root/active" # the admin stops the daemon
must --erase duet
asked 'stop duetd.service duet-guard.service duet-apps.service duetd-witness.service'
grep -q /var/lib/duet "$root/said" || fail "the removal does not say where the data is"
gone /usr/bin/duet /usr/sbin/duetd /usr/lib/systemd/system/duetd.service /usr/share/duet /usr/share/doc/duet
here /var/lib/duet/pki/ca.key /var/lib/duet/volumes/web01/vda.raw
grep -q sleepy "$root/etc/sysconfig/duetd.rpmsave" || fail "the admin's options are lost"
`

// TestLifeOfRPM is TestLife's for rpm: installed, upgraded, not removed from under VMs, removed with the data kept.
func TestLifeOfRPM(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a root to install into")
	}
	need(t, "rpm", "unshare")
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	found, err := filepath.Glob(filepath.Join(dist(t), "duet-*."+arch+".rpm"))
	if err != nil || len(found) != 1 {
		t.Fatalf("want one .rpm: %v, %v", found, err)
	}
	life := exec.Command("unshare", "--mount", "sh", "-c", lifeOfRPM, "sh", t.TempDir(), found[0], upgrade(t, "rpm"))
	if out, err := life.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
