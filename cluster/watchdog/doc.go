// Package watchdog lets the hardware reset this node when its daemon hangs while it holds guests.
//
// A watchdog is a timer outside the processor's program: once armed it resets the computer unless it is fed in time.
// Guard arms it only while the node holds guests, feeds it only after the node has proven that it works, and stops it
// in good order. No write depends on it: the rules of cluster/DESIGN.md keep a node that hangs and wakes up from
// acknowledging anything. It ends what they cannot: a guest that answers reads from its memory, or keeps its address on
// the network, on a node whose daemon is stuck.
//
//	the daemon hangs            not fed: the node is reset
//	a check is slow             fed when it ends; the timeout is at least MinChecks intervals, and each
//	                            interval without feeding is logged as an error with the time that is left
//	the daemon stops in order   disarmed
//	the daemon is killed        the timer goes on, for most drivers; the next daemon opens the device at its start
//	                            and takes the timer over, so a restart must be shorter than the timeout
//	the daemon stays away       the node is reset, and the guests it left behind end
//
// The device is /dev/watchdog, or /dev/watchdog0, /dev/watchdog1, … where there are several; the module softdog makes
// one in software, which works as long as the kernel does. A device can be open once: systemd (RuntimeWatchdogSec) or
// the package watchdog must not use the same. A driver that never lets go (nowayout) is refused, because each stop of
// the daemon would reset the node: load it with nowayout=0.
//
// Files: device.go is one device, device_linux.go the kernel's calls (Documentation/watchdog/watchdog-api), guard.go
// when it is fed. All of it runs on the goroutine of Run, but for the check.
package watchdog
