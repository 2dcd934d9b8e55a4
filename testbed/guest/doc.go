// Package guest makes the tiny VM of the tests: a Debian kernel, an initramfs with one static Go program, the libvirt
// domain around them, and readers for what the VM leaves behind on its console and its disk.
//
// The guest boots in a few seconds under software emulation, appends numbered records to /dev/vda (package record) and
// says on the serial console which of them were acknowledged and flushed. Comparing the two tells whether an
// acknowledged write was lost.
//
// Where the processor is emulated twice, Debian's kernel takes minutes to boot. The small guest (BuildBare) writes the
// same records and says the same lines, without an operating system.
package guest
