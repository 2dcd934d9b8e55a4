package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"duet/testbed/check"
	"duet/testbed/guest"
	"duet/testbed/guest/record"
	"duet/testbed/testcluster"
)

// Violation is a broken promise, with what is needed to understand it.
type Violation struct {
	What  string // a sentence
	Proof string // the history of the bad block, for example
}

// Judge waits for the pair to be whole after an Inject and says what is broken; nothing is. Then new histories
// begin. After a violation nothing is forgotten, so that the histories can be looked at. It bounds itself by
// healTime. Judged are: that the pair is whole by itself; that no request was refused; each page as a register;
// the records of the guest; that a verify finds both copies the same; that each VM runs once.
func (p *Pair) Judge(ctx context.Context, plan Plan) []Violation {
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	if plan.Blackout {
		if all := p.afterBlackout(ctx); all != nil {
			return all
		}
	}
	if err := p.Healthy(ctx); err != nil {
		return []Violation{{What: fmt.Sprintf("the pair is not whole %v after everything works: %v", healTime, err)}}
	}
	var all []Violation
	for _, w := range p.writers {
		all = append(all, p.judgeWriter(ctx, w)...)
	}
	all = append(all, p.judgeRecords(ctx)...)
	for _, m := range modules() {
		all = append(all, p.judgeCopies(ctx, m)...)
	}
	if len(all) == 0 {
		for _, w := range p.writers {
			w.Forget()
		}
	}
	return all
}

// judgeWriter ends the history of a writer by reading everything and judges it. A refused request is a
// violation: the guest would have seen an I/O error, which the promise excludes whatever breaks.
func (p *Pair) judgeWriter(ctx context.Context, w *Writer) []Violation {
	if err := errors.Join(w.Pause(ctx, testcluster.Until), w.Sweep()); err != nil {
		return []Violation{{What: err.Error()}}
	}
	past := w.History()
	var all []Violation
	for _, r := range past.Refused {
		all = append(all, Violation{What: "a guest would have seen an error: " + r})
	}
	if err := check.Linearizable(past.Ops, 20*time.Second); err != nil {
		all = append(all, Violation{What: w.Volume + ": " + err.Error(), Proof: proof(past.Ops, err)})
	}
	return all
}

// afterBlackout reads the volumes before anybody writes to them again. Writers are held from the first loss of
// power on, so what is read is what survived. The history before it is judged as registers, what is found only
// by what was flushed.
func (p *Pair) afterBlackout(ctx context.Context) []Violation {
	var all []Violation
	for _, w := range p.writers {
		if err := testcluster.Until(ctx, w.Volume+" is in step after the blackout", func() error {
			_, err := p.inStep(ctx, w.Volume)
			return err
		}); err != nil {
			return []Violation{{What: err.Error()}}
		}
		before := w.History()
		dark := w.now()
		if err := errors.Join(w.Pause(ctx, testcluster.Until),
			testcluster.Until(ctx, w.Volume+" can be read", w.Sweep)); err != nil {
			return []Violation{{What: err.Error()}}
		}
		found := map[uint64]uint64{}
		for _, op := range w.History().Ops {
			if !op.Write && op.Call >= dark && op.Block < pages-1 {
				found[op.Block] = op.Value
			}
		}
		if err := check.Linearizable(before.Ops, 20*time.Second); err != nil {
			all = append(all, Violation{What: w.Volume + " before the blackout: " + err.Error(), Proof: proof(before.Ops, err)})
		}
		for _, v := range check.Survived(before.Ops, before.Flushes, found) {
			all = append(all, Violation{What: w.Volume + ": " + v.String()})
		}
		w.Forget()
	}
	return all
}

// proof is the end of the history of the block that an error names. Sixty operations before the end, or around
// the first read that no write explains; times are seconds of the writer's clock.
func proof(ops []check.Op, err error) string {
	_, rest, _ := strings.Cut(err.Error(), "block ")
	var block uint64
	if _, err := fmt.Sscan(strings.TrimSuffix(strings.Fields(rest)[0], ","), &block); err != nil {
		return err.Error()
	}
	ops = slices.DeleteFunc(slices.Clone(ops), func(o check.Op) bool { return o.Block != block })
	slices.SortFunc(ops, func(a, b check.Op) int { return int(a.Call - b.Call) })
	newest := map[uint64]int{} // where a value was written; 0 is written often
	for i, o := range ops {
		if o.Write && o.Value != 0 {
			newest[o.Value] = i
		}
	}
	from := max(0, len(ops)-60)
	for i, o := range ops { // begin before the first read that is obviously wrong, if there is one
		at, ok := newest[o.Value] // after i if it was read before it was written
		if !o.Write && !o.Unknown && o.Value != 0 && (!ok || at < i && later(ops[at+1:i], ops[at], o)) {
			from = max(0, min(at, i-30))
			break
		}
	}
	var b strings.Builder
	for _, o := range ops[from:min(len(ops), from+120)] {
		verb := "read "
		if o.Write {
			verb = "write"
		}
		fmt.Fprintf(&b, "  %12.6f … %12.6f  client %d %s %d", float64(o.Call)/1e9, float64(o.Return)/1e9, o.Client, verb,
			o.Value)
		if o.Unknown {
			b.WriteString("  (not answered, or not proven)")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// later tells whether a write between w and r was acknowledged after w and before r. Such a write hides w from
// r: then r has read what was written over.
func later(between []check.Op, w, r check.Op) bool {
	return slices.ContainsFunc(between, func(o check.Op) bool {
		return o.Write && !o.Unknown && o.Call > w.Return && o.Return < r.Call
	})
}

// darken remembers that everything unflushed may be lost now. It is called when the first host of a blackout has
// lost its power and again after the second: boots that ended by then count only for what they flushed.
func (p *Pair) darken() error {
	for name := range p.Hosts {
		log, err := p.ReadConsoleOf(name, Records)
		if err != nil {
			return err
		}
		for _, b := range log.Boots {
			p.dark[b.ID] = true
		}
	}
	for _, w := range p.writers {
		w.Hold()
	}
	return nil
}

// judgeRecords compares what the Linux guest was told on both hosts with its disk. Consoles are read before the
// disk: what they promise by then has to be there, what is promised later need not be.
func (p *Pair) judgeRecords(ctx context.Context) []Violation {
	primary, err := p.inStep(ctx, Records)
	if err != nil {
		return []Violation{{What: err.Error()}}
	}
	var all []Violation
	machines, err := p.machines(Records)
	if err != nil || len(machines[primary.Name]) != 1 || len(machines) != 1 {
		return []Violation{{What: fmt.Sprintf("%s is PRIM on %s, and its QEMUs are %v (%v)", Records, primary.Name,
			machines, err)}}
	}
	var consoles []check.Console // what they promise by now must be on the disk a moment later
	for _, name := range []string{testcluster.Alpha, testcluster.Beta} {
		log, err := p.ReadConsoleOf(name, Records)
		if err != nil {
			return []Violation{{What: err.Error()}}
		}
		c := check.Console{Where: name}
		for _, b := range log.Boots {
			if len(b.Errors) != 0 || b.Holes != 0 || b.Torn != 0 || b.Breaks != 0 {
				all = append(all, Violation{What: fmt.Sprintf(
					"boot %.8s on %s saw errors %q, %d holes, %d torn records, %d breaks",
					b.ID, name, b.Errors, b.Holes, b.Torn, b.Breaks)})
			}
			c.Boots = append(c.Boots, p.promised(b))
		}
		consoles = append(consoles, c)
	}
	disk, err := p.readDisk(primary)
	if err != nil {
		return append(all, Violation{What: err.Error()})
	}
	for _, v := range check.History(consoles, disk, check.Acked) {
		all = append(all, Violation{What: Records + ": " + v.String()})
	}
	return all
}

// promised is what a boot was promised: of one that ended in a blackout what it flushed.
func (p *Pair) promised(b guest.Boot) check.Boot {
	out := check.Boot{ID: b.ID, Scanned: b.Scanned, Last: b.Last, Acks: b.Acks, Flushes: b.Flushes}
	if p.dark[b.ID] {
		var top uint64
		for _, n := range b.Flushes {
			top = max(top, n)
		}
		out.Acks = slices.DeleteFunc(slices.Clone(b.Acks), func(n uint64) bool { return n > top })
	}
	return out
}

// readDisk reads the disk of the running Linux guest through its socket, while QEMU is stopped: a record that it
// writes at this instant might be read half. It uses the socket of the primary beside QEMU, as the daemon was
// started with -admit-root. QEMU goes on whatever comes of it.
func (p *Pair) readDisk(primary *testcluster.Host) (check.Disk, error) {
	s := injection{Pair: p}
	if err := s.signal(Records, stopSignal); err != nil {
		return check.Disk{}, err
	}
	defer func() { _ = s.signal(Records, contSignal) }()
	socket, err := primary.Node.Outside("/run/duet/volumes/" + Records + "-vda.sock")
	if err != nil {
		return check.Disk{}, err
	}
	c, err := dialNBD(socket)
	if err != nil {
		return check.Disk{}, err
	}
	done := make(chan struct{})
	go func() { defer close(done); c.receive() }()
	defer func() { c.Close(); <-done }()
	im, err := record.Scan(reader{c}, recordsSize)
	if err != nil {
		return check.Disk{}, err
	}
	d := check.Disk{First: 1, Last: im.Last, Boots: map[uint64]string{}, Breaks: im.Breaks}
	if im.Last > im.Slots {
		d.First = im.Last - im.Slots + 1
	}
	for n := d.First; n <= im.Last; n++ {
		if r, ok := im.Get(n); ok {
			d.Boots[n] = r.Boot.String()
		}
	}
	return d, nil
}

// reader reads a volume. It reads through one connection, so its pages are of one instant only while nobody
// writes.
type reader struct{ *conn }

func (r reader) ReadAt(b []byte, off int64) (int, error) {
	if err := r.do(request{cmd: cmdRead, off: off, length: len(b), data: b}); err != nil {
		return 0, err
	}
	return len(b), nil
}

var _ io.ReaderAt = reader{}

// judgeCopies has both copies of a module compared, and counts its VMs. Two QEMUs of one module, on one host or
// two, are a violation even when the data are whole.
func (p *Pair) judgeCopies(ctx context.Context, module string) []Violation {
	primary, err := p.inStep(ctx, module)
	if err != nil {
		return []Violation{{What: err.Error()}}
	}
	out, err := primary.Duet(ctx, "volume", "verify", module+"/vda")
	if err != nil || !strings.Contains(out, "identical") {
		return []Violation{{What: fmt.Sprintf("verify of %s: %s %v", module, out, err)}}
	}
	machines, err := p.machines(module)
	if err != nil || len(machines) != 1 || len(machines[primary.Name]) != 1 {
		return []Violation{{What: fmt.Sprintf("%s is PRIM on %s, and its QEMUs are %v (%v)", module, primary.Name,
			machines, err)}}
	}
	return nil
}
