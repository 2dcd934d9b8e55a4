// Package divergence keeps what a resync is about to overwrite.
//
// After a split brain the copy of the node that lost is overwritten by the winner's
// resync. Before a region (blockrepl.RegionSize) of it changes for the first time, its
// old content is saved aside. The saved regions laid over the image as it is now are
// the loser's whole version: readable, comparable and exportable for days, while
// the volume goes on being written, also after later failovers and restarts.
//
//	Begin, Open   a Version, one directory
//	Wrap          a Device that saves into versions before it changes the image
//	Read, Reader, Differs, Export, Drop   what an admin does with a Version
//	List, Sweep, Drop                     what a node does with the directory of all versions
//
// # Format
//
// A version is a directory named by its id:
//
//	about.json  what it is; never changes
//	data        sparse, as long as the volume; each saved region at its own offset
//	map         which regions are saved: a header, then a log of frames
//	dropped     about.json under this name: the version is forgotten, Sweep may remove it
//	unreadable  ranges of the old content that could not be read; if there are any
//	given-up    about.json under this name: nothing is kept any more
//
// The map is little endian. Its header is magic(8) region size(4) 0(4) volume size(8)
// crc(4) 0(4); the checksum (CRC-32C) also covers the id, so a map fits one about.json.
// A frame is crc(4) number of runs(4) sequence(8), then for each run first region(8, top
// bit: the regions were zeroes and are not in data) and number of regions(4). Its
// checksum is seeded with that of the header, sequences count from 1, and the file is
// extended by zeroes in large steps, so that a sync of a frame is one write.
//
// Replay ends at the first frame that is not whole. That is the one that was being
// written when the power went; a whole frame behind it means that something else was
// lost, and the version is ErrDamaged. A bad frame never marks a region.
//
// # Order of durability
//
//	before                                      is durable
//	a version begins to save (Wrap, AddVersion) what was written to the image so far (Flush)
//	a frame of the map is written               the data of its regions
//	a region counts as saved                    its frame
//	the image changes                           all its regions in every version that is not given up
//	a version is given up                       the name "given-up"
//	an image is opened without one of its       that this is given up, dropped or damaged
//	a frame found by Open is trusted            that frame, synced again: Open cannot know
//	the directory of a version goes away        the name "dropped"
//
// The image matters more than its old versions: one whose files fail, because their file
// system is full say, or that cannot be opened, is given up, and the write goes on. Its directory keeps what it was
// and why, until Drop; its content is gone.
//
// It is assumed, as SQLite does, that a write torn by power loss harms only bytes it was to change.
//
// # Who may call
//
// The node that holds the copy, and nobody else: Open locks the version. While any
// version of an image exists, every writer of that image must go through one Device
// that has all of them; a write around it changes the versions without a trace. So a
// version that cannot be opened is given up before its image is (Keeper.Open).
//
// # Locks and waiting
//
// A write into a region that is not saved yet waits for a read of the image, a write and two syncs beside it (data,
// then map); writes that come together share them. A write into a saved one costs a bitmap test. No goroutine is
// started here. Locks are taken in this order: Device.mu, Version.use, then claiming or syncing, queue last.
//
// # Reading order
//
// version.go (a Version and its files), save.go (how content gets into it), mapfile.go (which regions it has),
// device.go (who makes writes wait for it), read.go and export.go (what it gives), giveup.go and list.go (how it
// ends), keeper.go (all versions of a node). file.go, bitmap.go and sys_*.go are below all of these.
//
// A change of the files needs another aboutFormat and a reader of the old one: versions of the release before are
// there.
package divergence

import "errors"

var (
	// ErrAside is wrapped by writes of a Device when the old content could not be saved, and
	// the version could not be given up either, or is closed. The image was not touched.
	ErrAside = errors.New("old content not saved aside")
	// ErrDamaged is returned when a version's files are incomplete or contradict each other.
	ErrDamaged = errors.New("saved version is damaged")
	// ErrInUse is returned when a version, or the target of an export, is open elsewhere.
	ErrInUse = errors.New("saved version is in use")
	// ErrDropped is returned by operations on a Version after Drop. Saving into one is no error: nothing is wanted of it.
	ErrDropped = errors.New("saved version was dropped")
	// ErrGivenUp is returned by operations on a Version that could not be kept whole. Its content is gone for good.
	ErrGivenUp = errors.New("saved version was given up")
	// ErrClosed is returned by operations on a Version after Close.
	ErrClosed = errors.New("saved version is closed")
	// ErrSize is returned when a version and an image differ in size.
	ErrSize = errors.New("saved version is of another size")
)
