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
package badgerlog
