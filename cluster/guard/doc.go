// Package guard keeps a node's guests from running beside those that its peer starts, when the daemon here is dead.
//
// A daemon that is killed, or hangs, acknowledges nothing any more: the disks of its guests are fenced whatever
// happens (cluster/DESIGN.md, rule 2). But the guests run on, answer on their addresses, and answer reads from memory,
// while the peer starts them a second time. The guard is a process of its own that outlives the daemon. It is small:
// it links nothing to the hypervisor, locks its memory, reads no disk and writes to nothing but a file in /run.
//
//	the daemon tells, twenty times in a detection time, of each guest: its process, and whether this node has the right
//	no such word for PauseAfter                the guest is paused: before the peer may take over
//	the peer says that it holds a newer epoch  the guest is ended
//	a later word says that the right is here   the guest goes on
//
// # When
//
// A peer is suspected when the heartbeats have been silent for 85 % of the detection time. The last proof of a life
// was asked for at most two beats (10 %) before its end, so nobody takes over sooner than 75 % after it. PauseAfter is
// 60 %, from the last word, which is older than the end. What a word is worth counts from when it was said, by a clock
// that runs in suspend too: one that waited in a socket while this computer stood still is old. A daemon that stops on
// purpose says by its last word how long the peer, which was told, leaves it. A guest that only this node has all data
// of, and whose peer is not even connected (ALONE), is never paused: nobody can take over.
//
// # What counts as a word
//
// Not every sign of life: only one that vouches for the right to write. A daemon that has just started, or found that
// it stood still for long, does not know whether it has that; it vouches after its peer has answered, later, that it
// neither has nor asks for a newer epoch. So a daemon that dies every second, and starts again, postpones nothing.
//
// # How
//
// By SIGSTOP, through a pidfd whose process was compared with what the daemon said (number and start time), so no
// other process can be hit, however long ago that was. It needs neither libvirtd nor QEMU's monitor to answer and
// stops all CPUs of the guest within microseconds. libvirt goes on saying "running", and answers what it knows by
// itself; what needs QEMU waits until the guest goes on or is killed (docs/compatibility.md). A pause of libvirt
// (virsh suspend) is another thing: a guest that an admin paused is paused after SIGCONT too. A thread that is in the
// kernel for a disk ends its call first and runs no instruction after it.
//
// # Why asking the peer is enough
//
// A guest that is paused neither answers nor writes, so ending it is never urgent, and keeping it never wrong: it only
// must be sure. Only the peer's own word is: a newer epoch that it holds is durable there and for ever, so this guest
// can never have the right again. If the peer does not answer, the guest stays paused until the daemon is back and
// decides, as it would without a guard. The witness need not be asked: what it granted, the peer holds or will ask for
// again.
//
// # What remains
//
// The guard and the daemon killed together and neither started again: the guest runs on as if there were no guard,
// until the daemon is back. Each alone is started again by systemd; a guard that starts takes up what the last one was
// told. A guest that was told to nobody yet (its QEMU younger than a twentieth of the detection time) is not known.
// When systemd ends QEMU's scope it sends SIGCONT after SIGTERM: such a guest runs for the moment that QEMU takes to
// end.
//
// # Files, in reading order
//
// word.go is what is said, and what an answer of the peer proves; roster.go decides and is pure; guard.go carries
// out, over process_linux.go; link.go is how the daemon speaks, sentry.go what it says. A change of the times
// changes this comment and the detector of package gossip with it. The words are between programs of one computer,
// but of two releases while it is upgraded: fields are added, and a zero must mean what their absence did.
package guard
