// Package machine makes real Debian machines on one computer: the distribution's own packages in their own
// configuration, as an admin has them, on networks of their own without a way to the outside.
//
// There are two kinds behind one interface. A container (systemd-nspawn) has this computer's kernel and a systemd,
// boots in a second and reboots as a host does. An emulated machine (QEMU) has Debian's own kernel, for AppArmor and
// kernel modules; it takes minutes. A Site is some of them and their networks. Pulling the plug of one first cuts its
// cables: nobody hears it die.
//
// Roots are made by debootstrap and apt, in layers that lie in the user's cache and are never written again: base (a
// Debian as it comes), host (what the README asks an admin to have), kernel, suite. The mirror is the one of this
// computer's own apt. A machine boots from a private copy (overlayfs, or a file with ext4). Nothing outlives the
// process that has the machines but their folder in the cache, which the next process removes.
//
// Exec and Tests are for what makes its own nodes: they run a program, or a test binary of this module, in a root of
// another release, so that `make test` runs the libvirt suites on every release. By hand that is
//
//	go run ./testbed/machine/on -release 13 ./vmmanager/libvirt -test.v -test.run TestRealLibvirt
//
// It needs root and Linux, and for the first run a Debian mirror. What a container is not: its kernel, and so AppArmor,
// kvm and block devices, is this computer's; what its programs wrote survives its loss of power although it was not
// synced; and its network is there before its first process.
//
//	machine.go            Machine, what both kinds promise
//	site_linux.go         some machines and their networks
//	container_linux.go    a container; cgroup_linux.go its control groups
//	emulated_linux.go     an emulated machine; agent_linux.go how commands get into it
//	image_linux.go        layers and private copies; release_linux.go where packages come from
//	exec_linux.go         a program in a root; tests_linux.go a test binary of this module
//	child_linux.go        a process that dies with this one
package machine
