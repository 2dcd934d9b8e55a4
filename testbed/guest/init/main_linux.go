// Command init is process 1 of the test VM: it loads the virtio modules, appends numbered records to /dev/vda and says
// on the serial console what it did. A line about a record is printed only after the kernel acknowledged that record.
//
// Lines: "DUET boot ID slots=N", "DUET scan last=N holes=N torn=N breaks=N", "DUET ack N", "DUET flush N" (every
// record up to N is durable), "DUET hole N" (one that should be there), "DUET note TEXT", "DUET error TEXT",
// "DUET poweroff". Package guest reads them; a line that a sudden end has cut counts as not said, so what is
// said is never more than what was acknowledged.
//
// The options are words of the kernel's command line: duet.mode=writer|idle|poweroff-after=N|panic-after=N,
// duet.rate=N, duet.flush=N, duet.net=ADDRESS/BITS.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"duet/testbed/guest/record"
)

func main() {
	con, err := prepare()
	if err == nil {
		err = run(con)
	}
	if err != nil {
		con.say("error %v", err)
	}
	con.say("poweroff")
	con.drain()
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		con.say("error power off: %v", err)
		con.flush()
	}
	select {} // process 1 must not return: that would panic the kernel, which tests ask for explicitly
}

// prepare mounts the file systems and loads the modules. It returns a usable console even with an error. Without
// a disk's driver it goes on: openDisk says so.
func prepare() (*console, error) {
	for _, m := range []struct{ kind, at string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return &console{w: os.Stdout}, err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return &console{w: os.Stdout}, fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	tty, err := os.OpenFile("/dev/ttyS0", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return &console{w: os.Stdout}, err
	}
	con := &console{w: tty}
	con.buf.WriteString("--\n") // ends a line that an earlier boot left unfinished, and spoils it
	names, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return con, err
	}
	sort.Strings(names) // the names begin with their place in the order of dependencies
	for _, name := range names {
		// A module for a device this VM does not have may refuse to load; a missing disk is noticed below.
		if err := insmod(name); err != nil {
			con.say("note insmod %s: %v", filepath.Base(name), err)
		}
	}
	return con, nil
}

// insmod: the file must be the module itself, not compressed.
func insmod(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// run returns when the VM is to switch itself off, and only then. After an error of the disk it waits to be
// told.
func run(con *console) error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	opt, err := parseOptions(string(cmdline))
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 4)
	signal.Notify(stop, unix.SIGTERM)
	go watchPowerButton(stop)
	go serveAgent(stop)

	w := &writer{con: con, opt: opt}
	if w.boot, err = newBootID(); err != nil {
		return err
	}
	if opt.net.IsValid() {
		if err := serveNetwork(opt.net, w.boot); err != nil {
			return err
		}
	}
	d, err := openDisk("/dev/vda", 5*time.Second)
	if err != nil {
		return err
	}
	w.disk = d
	if err := w.scan(); err != nil {
		return err
	}
	done, err := w.append(stop)
	switch {
	case err != nil:
		// Stay up: a guest that switched itself off would hide the error from whoever looks at the VM's state.
		con.say("error %v", err)
		con.flush()
		<-stop
	case done && opt.then == "panic":
		con.drain()
		return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	}
	return nil
}

// newBootID returns a number that no other boot has. The kernel's generator is asked not to wait until it is seeded,
// which takes over a second on an emulated CPU; the clock makes up for it.
func newBootID() (id record.BootID, err error) {
	if _, err := unix.Getrandom(id[:], unix.GRND_INSECURE); err != nil {
		return id, fmt.Errorf("make boot id: %w", err)
	}
	now := binary.LittleEndian.Uint64(id[:]) ^ uint64(time.Now().UnixNano())
	binary.LittleEndian.PutUint64(id[:], now)
	return id, nil
}

// openDisk waits for path to be a block device. Without this check a missing driver would make the guest write
// to a plain file in its own memory and call that durable. O_DIRECT keeps this guest's own page cache out of it:
// what is acknowledged was acknowledged by the host's side.
func openDisk(path string, wait time.Duration) (*disk, error) {
	for deadline := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		st, err := os.Stat(path)
		if err == nil && st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0 {
			break
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s is no block device (%v)", path, err)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, 2)
	if err != nil {
		return nil, err
	}
	// Anonymous memory is page aligned, as O_DIRECT wants it.
	block, err := unix.Mmap(-1, 0, record.Size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	return &disk{f: f, size: size, block: block, path: path}, nil
}
