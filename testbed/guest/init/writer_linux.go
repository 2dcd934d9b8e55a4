package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"duet/testbed/guest/record"
)

// console collects lines and writes them in batches. It is for one goroutine.
type console struct {
	w    io.Writer
	buf  bytes.Buffer // whole lines
	last time.Time    // of the last flush
}

// say adds a line. The line is on the wire after the next flush. A serial port is slow, so lines go out
// together: at once if the last ones are 50 ms old, or when they are a KiB. What is in the buffer when the power
// goes is not said.
func (c *console) say(format string, args ...any) {
	fmt.Fprintf(&c.buf, "DUET "+format+"\n", args...)
	if c.buf.Len() > 1024 || time.Since(c.last) > 50*time.Millisecond {
		c.flush()
	}
}

// flush: it blocks for as long as the port takes the bytes.
func (c *console) flush() {
	// Nobody can be told that the console itself fails.
	_, _ = c.w.Write(c.buf.Bytes())
	c.buf.Reset()
	c.last = time.Now()
}

// drain waits until the other side has every byte: what the line driver still holds when the power goes off is lost.
func (c *console) drain() {
	c.flush()
	if tty, ok := c.w.(*os.File); ok {
		_ = unix.IoctlSetInt(int(tty.Fd()), unix.TCSBRK, 1) // tcdrain; a console that is no terminal has nothing to drain
	}
}

type disk struct {
	f     *os.File // O_DIRECT
	path  string
	size  int64  // bytes
	block []byte // one record, page aligned
}

// writer: it is for one goroutine. next and prev follow from the scan, so records of all boots make one chain.
type writer struct {
	con  *console // where it says what was acknowledged
	opt  options
	disk *disk // nil before openDisk
	boot record.BootID
	next uint64 // number of the next record
	prev uint32 // checksum of the record before it
}

// scan reads the whole disk and says what it holds. It uses a second descriptor, because record.Scan does not
// promise the aligned buffers that O_DIRECT needs; right after boot the page cache is empty, so the bytes do
// come from the disk. At most 16 holes are named.
func (w *writer) scan() error {
	slots := uint64(w.disk.size / record.Size)
	w.con.say("boot %s slots=%d", w.boot, slots)
	f, err := os.Open(w.disk.path)
	if err != nil {
		return err
	}
	defer f.Close()
	im, err := record.Scan(f, w.disk.size)
	if err != nil {
		return err
	}
	w.next = im.Last + 1
	if rec, ok := im.Get(im.Last); ok {
		w.prev = rec.Sum
	}
	w.con.say("scan last=%d holes=%d torn=%d breaks=%d", im.Last, len(im.Holes), len(im.Torn), len(im.Breaks))
	for _, n := range im.Holes[:min(len(im.Holes), 16)] {
		w.con.say("hole %d", n)
	}
	w.con.flush()
	return nil
}

// append writes records until told to stop, until the count of the options is reached (done is true then), or
// until the disk fails. It flushes what it wrote before it returns without an error. A stop is looked at between
// two records only: one that waits for its disk, as a frozen one does, cannot be stopped but by force.
func (w *writer) append(stop <-chan os.Signal) (done bool, err error) {
	if w.opt.idle {
		<-stop
		return false, nil
	}
	wait := w.pace(stop)
	for n := uint64(0); w.opt.then == "" || n < w.opt.count; n++ {
		if !wait() {
			return false, w.sync()
		}
		if err := w.write(); err != nil {
			return false, err
		}
		if w.opt.every > 0 && (w.next-1)%w.opt.every == 0 {
			if err := w.sync(); err != nil {
				return false, err
			}
		}
	}
	return true, w.sync()
}

// pace returns a function that waits for the moment of the next record, and is false when it is time to stop. A
// record that took longer than its time is not made up for: ticks that nobody takes are dropped.
func (w *writer) pace(stop <-chan os.Signal) func() bool {
	if w.opt.rate == 0 {
		return func() bool { return len(stop) == 0 }
	}
	tick := time.Tick(time.Second / time.Duration(w.opt.rate))
	return func() bool {
		w.con.flush() // nobody should wait for a line while nothing happens
		select {
		case <-stop:
			return false
		case <-tick:
			return true
		}
	}
}

// write: the line is said after the kernel has acknowledged the write, never before: the other way round would
// accuse the cluster of a loss.
func (w *writer) write() error {
	sum := record.Encode(w.disk.block, record.Record{Number: w.next, Boot: w.boot, Prev: w.prev})
	at := int64(record.Slot(w.next, uint64(w.disk.size/record.Size))) * record.Size
	if _, err := w.disk.f.WriteAt(w.disk.block, at); err != nil {
		return fmt.Errorf("write %d: %w", w.next, err)
	}
	w.con.say("ack %d", w.next)
	w.prev = sum
	w.next++
	return nil
}

// sync: the line names the newest record that had been acknowledged before the flush began.
func (w *writer) sync() error {
	if err := unix.Fdatasync(int(w.disk.f.Fd())); err != nil {
		return fmt.Errorf("flush %d: %w", w.next-1, err)
	}
	w.con.say("flush %d", w.next-1)
	w.con.flush()
	return nil
}
