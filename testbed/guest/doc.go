// Package guest makes the tiny VM of the tests: a Debian kernel, an initramfs with one static Go program, the libvirt
// domain around them, and readers for what the VM leaves behind on its console and its disk.
//
// The guest boots in a few seconds under software emulation, appends numbered records to /dev/vda (package record) and
// says on the serial console which of them were acknowledged and flushed. Comparing the two tells whether an
// acknowledged write was lost.
//
// Where the processor is emulated twice, Debian's kernel takes minutes to boot. The small guest (BuildBare) writes the
// same records and says the same lines, without an operating system.
//
// Build needs Linux, Debian's apt and xz, a way to Debian's mirror the first time, and the go command; BuildBare
// needs gcc for 32 bits. Both leave files in a cache: each new content of the initramfs is a file more, and none
// is removed. Readers and Domain are pure and work everywhere.
//
//	init/        process 1 of the guest; bare/ the small guest
//	record/      what lies on the disk; console.go what is said on the console
//	domain.go    libvirt's definition
//	build_linux.go, modules.go, cpio.go   kernel and initramfs; bare_linux.go the small guest
package guest
