// Package directory keeps directories on a volume: it makes the file system, takes in what the directories hold, puts
// them where applications look for them, and takes them away again.
//
// The volume's file system is mounted below a directory of Duet's own and has the content of each directory under its
// whole path there, so that somebody who mounts an image by hand finds everything where it belongs. Each directory is
// a bind mount of that.
//
// Nothing here knows of modules or of nodes, and nothing runs by itself: whoever calls it has the right to write the
// device, and gives it up only after Detach or Kill has returned nil.
//
//	make.go     a file system on an image, and what goes into it first
//	mount.go    a mounted volume
//	users.go    who keeps it from being unmounted
package directory
