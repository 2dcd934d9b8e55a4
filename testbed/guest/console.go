package guest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Log is what a console says of all boots of its VM, in their order. A VM that moves between hosts has one
// console, or one for each host: see testcluster.Config.Apart. It is what survives of what the guest was
// promised, as the console is outside the VM.
type Log struct {
	Boots []Boot
}

// Boot is what one boot of the guest said before it ended.
type Boot struct {
	ID      string   // record.BootID in hexadecimal
	Slots   uint64   // size of the disk in records
	Scanned bool     // whether the scan came to its end; the next four are 0 before
	Last    uint64   // highest record found on the disk
	Holes   uint64   // records below it that were not there
	Torn    uint64   // blocks that are broken
	Breaks  uint64   // records that do not continue their predecessor
	Acks    []uint64 // records whose write was acknowledged, in the order of the lines
	Flushes []uint64 // for each flush that was acknowledged, the newest record it covers
	Errors  []string // what went wrong in the eyes of the guest, an I/O error for example
	Off     bool     // it switched itself off in order
}

// ParseConsole reads a console. Kernel messages and lines that a sudden end has cut are skipped: what they might
// have said then counts as never said. The error is that of r. It is safe to call while the guest writes. A boot
// whose first line is lost does not begin: its lines count for the boot before.
func ParseConsole(r io.Reader) (Log, error) {
	var log Log
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return log, nil // a line without its end may be half a number
		}
		if err != nil {
			return log, fmt.Errorf("read console: %w", err)
		}
		line, ours := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "DUET ")
		if !ours {
			continue
		}
		verb, rest, _ := strings.Cut(line, " ")
		if verb == "boot" {
			log.boot(rest)
		} else if len(log.Boots) > 0 {
			log.Boots[len(log.Boots)-1].line(verb, rest)
		}
	}
}

// boot begins a boot; a line that is not whole begins none.
func (l *Log) boot(rest string) {
	id, slots, _ := strings.Cut(rest, " slots=")
	n, err := strconv.ParseUint(slots, 10, 64)
	if err == nil && len(id) == 32 {
		l.Boots = append(l.Boots, Boot{ID: id, Slots: n})
	}
}

// line takes one line; a verb that it does not know, such as hole or note, is left out.
func (b *Boot) line(verb, rest string) {
	n, err := strconv.ParseUint(rest, 10, 64)
	switch {
	case verb == "ack" && err == nil:
		b.Acks = append(b.Acks, n)
	case verb == "flush" && err == nil:
		b.Flushes = append(b.Flushes, n)
	case verb == "scan":
		var s Boot
		got, _ := fmt.Sscanf(rest, "last=%d holes=%d torn=%d breaks=%d", &s.Last, &s.Holes, &s.Torn, &s.Breaks)
		if got == 4 {
			b.Last, b.Holes, b.Torn, b.Breaks, b.Scanned = s.Last, s.Holes, s.Torn, s.Breaks, true
		}
	case verb == "error":
		b.Errors = append(b.Errors, rest)
	case verb == "poweroff":
		b.Off = true
	}
}

// Newest returns the last boot, a zero one if there was none.
func (l Log) Newest() Boot {
	if len(l.Boots) == 0 {
		return Boot{}
	}
	return l.Boots[len(l.Boots)-1]
}

// Acked returns the highest record that any boot says was acknowledged. Of all boots: a record that was promised
// once is promised for ever.
func (l Log) Acked() uint64 {
	var top uint64
	for _, b := range l.Boots {
		for _, n := range b.Acks {
			top = max(top, n)
		}
	}
	return top
}
