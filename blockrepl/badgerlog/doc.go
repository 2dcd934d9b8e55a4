// Package badgerlog keeps what a node must not forget in one badger store: the
// dirty logs of all its volumes and the small records of the module engine.
//
// One committer goroutine owns writing. Whatever waits when it comes round,
// from all volumes and from Put, becomes one synchronous transaction, because
// badger does not group concurrent transactions by itself. So 32 waiting marks
// cost about as much as one.
//
// badger maps its files into memory, and writing to a mapped file on a full disk
// kills the process (SIGBUS). Therefore nothing is written unless MinFree bytes
// are free, compaction runs only here and only with room to spare, and a ballast
// file holds the room that Open and Close need. The check is not a reservation:
// a neighbour that takes all of MinFree within the few milliseconds in which badger
// writes a memory table out can still win, so the directory should not share a file system with images.
//
// What was reported as done survives a killed process and a loss of power. After a sync that failed nothing is stored
// any more until the store is opened anew. It does not repeat anything, and knows nothing of what volumes or
// records mean.
//
// Its goroutines are the committer, which also runs every done callback, and tidyLoop; both end with Close.
//
// Files: store.go opens and closes; log.go and record.go are what callers see, values.go is JSON over it; commit.go is
// the committer, codec.go the keys and values; room.go and free_*.go watch the disk, tidy.go compacts, badger.go
// has the options. A new kind of key goes into codec.go and must not be a prefix of another.
package badgerlog
