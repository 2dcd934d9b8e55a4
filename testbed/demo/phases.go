package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"duet/console/api"
	"duet/testbed/testcluster"
)

// transitions reads web's log on beta since the kill. All is on one computer, so alpha's death and beta's log
// are by one clock.
func (d *demo) transitions(ctx context.Context) ([]api.LogEntry, error) {
	out, err := d.b.Duet(ctx, "log", web, "--json")
	if err != nil {
		return nil, err
	}
	var all, since []api.LogEntry
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	for _, e := range all {
		if e.Time.After(d.killed) {
			since = append(since, e)
		}
	}
	return since, nil
}

// phases tells how long each part of the failover took. The moments are those of events of the state machine in
// beta's log: the first Look, Granted and Up. One that is not in the log counts as the zero time, and makes its
// figures nonsense.
func (d *demo) phases(entries []api.LogEntry, firstWrite time.Time) {
	at := func(on string) time.Time {
		for _, e := range entries {
			if e.On == on && e.Node == testcluster.Beta {
				return e.Time
			}
		}
		return time.Time{}
	}
	suspected, granted, up := at("Look"), at("Granted"), at("Up")
	for _, e := range entries {
		d.show.line("  %6.2f s  %-18s → %-18s %s", e.Time.Sub(d.killed).Seconds(), e.From, e.To, e.Why)
	}
	d.show.note("alpha suspected after", "%.2f s", suspected.Sub(d.killed).Seconds())
	d.show.note("decision (arbitration)", "%.2f s", granted.Sub(suspected).Seconds())
	d.show.note("start of the VM's process", "%.2f s", up.Sub(granted).Seconds())
	d.show.note("host killed → VM runs on beta", "%.2f s", up.Sub(d.killed).Seconds())
	d.show.note("… → first guest write (boot under emulation)", "%.2f s", firstWrite.Sub(d.killed).Seconds())
}

// comeback boots alpha and waits until both VMs are replicated again. What was compared and moved is beta's own
// count of the last resync.
func (d *demo) comeback(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	d.show.title("Alpha comes back: only what differs is sent, while both VMs run")
	if _, err := d.writes(ctx, web, 40); err != nil {
		return err
	}
	away, err := d.b.On(ctx, web)
	if err != nil {
		return err
	}
	for _, v := range away.Volumes {
		d.show.line("  %s: %s of %s may differ from alpha's copy", v.Name, bytes(v.DirtyBytes), bytes(v.Size))
	}
	began := time.Now()
	if err := d.a.Boot(ctx); err != nil {
		return err
	}
	if err := d.a.StartDuetd(ctx); err != nil {
		return err
	}
	err = testcluster.Until(ctx, "web01 is in step on both hosts", func() error {
		st, err := d.b.On(ctx, web)
		if err != nil {
			return err
		}
		for _, v := range st.Volumes {
			if v.Sync != nil && v.Sync.Kind == "resync" {
				d.show.line("  resync of %s: %s to compare, %s dirty, %s moved", v.Name,
					bytes(v.Sync.Total-v.Sync.Compared), bytes(v.DirtyBytes), bytes(v.Sync.Moved))
			}
		}
		peer, err := d.a.On(ctx, web)
		if err != nil {
			return err
		}
		if peer.Role != "SECOND" || peer.Status != "Ready" {
			return fmt.Errorf("alpha is %s (%s): %s", peer.Role, peer.Status, peer.Why)
		}
		return nil
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	now, err := d.b.On(ctx, web)
	if err != nil {
		return err
	}
	last := now.Volumes[0]
	d.show.done("web01 is SECOND (Ready) on alpha %.1f s after the host began to boot: %s compared, %s moved",
		took.Seconds(), bytes(last.Compared), bytes(last.Moved))
	d.show.note("resync: compared / moved", "%s / %s of %s", bytes(last.Compared), bytes(last.Moved), bytes(last.Size))
	return d.a.Is(ctx, mail, "SECOND")
}

// swap brings web01 home by a planned swap: its guest shuts down and starts on alpha, and has lost nothing.
func (d *demo) swap(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	d.show.title("web01 goes home with one command: duet swap web01")
	began := time.Now()
	out, err := d.b.Duet(ctx, "swap", web)
	if err != nil {
		return err
	}
	d.show.line("  %s", out)
	if err := d.a.Is(ctx, web, "PRIM"); err != nil {
		return err
	}
	d.show.note("planned swap (guest shutdown and start)", "%.2f s", time.Since(began).Seconds())
	if err := d.b.Is(ctx, web, "SECOND"); err != nil {
		return err
	}
	log, err := d.writes(ctx, web, 5)
	if err != nil {
		return err
	}
	b := log.Newest()
	if b.Holes+b.Torn+b.Breaks != 0 {
		return fmt.Errorf("web01 lost data at the swap: %d holes, %d torn, %d breaks", b.Holes, b.Torn, b.Breaks)
	}
	d.show.done("web01 runs on alpha, mail01 on beta, both replicated")
	return nil
}
