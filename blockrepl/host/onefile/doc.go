// Package onefile is a FUSE file system of one file, whose content is a device: what a loop device is made on. It has
// no state but what the kernel keeps; each request is one call of the Device, made by a goroutine of its own, so many
// are in flight.
//
// The file is read and written past the page cache (FOPEN_DIRECT_IO): two caches of a volume would hold it twice, and
// what lies in one of a process in the write path can need memory to be written. What the kernel asks of it is
// include/uapi/linux/fuse.h; of FALLOCATE it takes the modes that the loop driver sends.
package onefile
