// Package proof decides when which part of a volume is compared with its other copy in the
// background, and remembers what was proven and what was not.
//
// A Ledger is what is known of one pair of copies: a value that its owner keeps durably, and that goes
// with the right to write from node to node. Proven means: at that moment both copies were read and were
// equal there. What is written later goes to both, and voids nothing; a comparison of everything
// that a resync begins with, or another volume, makes a new Ledger.
//
// Pace spreads the extents of a pass evenly over it. Budget is the share of the disks' time
// that all volumes of a node have for it together; it may make a pass longer than was wished.
// Nothing here reads a clock or a disk.
package proof
