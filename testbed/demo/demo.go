package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"duet/testbed/guest"
	"duet/testbed/testcluster"
)

// The VMs of the demo: one at home on each host.
const (
	web  = "web01"
	mail = "mail01"
	size = 32 << 20 // of each disk, bytes
)

// demo is the story, step by step. a and b are alpha and beta; a step uses what the steps before have left.
type demo struct {
	cluster *testcluster.Cluster
	show    *show
	a, b    *testcluster.Host
	before  guest.Log // web's console when alpha was killed
	killed  time.Time
}

// run: the first step that fails ends it: the cluster is as that step left it.
func (d *demo) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{d.form, d.protect, d.kill, d.failover, d.comeback, d.swap} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.show.summary()
	return nil
}

// form makes the cluster of both hosts, without a witness: a ping target decides.
func (d *demo) form(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := d.cluster.Form(ctx); err != nil {
		return err
	}
	d.show.done("cluster of alpha and beta, two heartbeat networks, everything between them over mutual TLS")
	return nil
}

// protect makes a VM at home on each host a module, and waits until both write.
func (d *demo) protect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	d.show.title("Two real VMs, active-active: web01 at home on alpha, mail01 on beta")
	for vm, host := range map[string]*testcluster.Host{web: d.a, mail: d.b} {
		if err := host.Protect(ctx, testcluster.VM{Name: vm, Size: size, Rate: 20}); err != nil {
			return err
		}
		d.show.done("%s runs on %s; every write goes to both hosts before it is acknowledged", vm, host.Name)
	}
	for _, vm := range []string{web, mail} {
		log, err := d.writes(ctx, vm, 40)
		if err != nil {
			return err
		}
		d.show.done("%s has %d acknowledged records", vm, log.Acked())
	}
	return nil
}

// writes waits until the guest has n more acknowledged records. Acknowledged is what the guest said on its
// console, wherever it runs.
func (d *demo) writes(ctx context.Context, vm string, n uint64) (log guest.Log, err error) {
	first, err := d.cluster.ReadConsole(vm)
	if err != nil {
		return log, err
	}
	err = testcluster.Until(ctx, fmt.Sprintf("%s writes %d more records", vm, n), func() error {
		if log, err = d.cluster.ReadConsole(vm); err != nil {
			return err
		}
		if log.Acked() < first.Acked()+n {
			return fmt.Errorf("%d so far", log.Acked()-first.Acked())
		}
		return nil
	})
	return log, err
}

// kill ends every process of alpha at once. The console is read after it: what is said there by then was
// acknowledged, and must be found again.
func (d *demo) kill(context.Context) error {
	d.show.title("Host alpha dies: SIGKILL to every process of it")
	d.killed = time.Now()
	if err := d.a.Kill(); err != nil {
		return err
	}
	var err error
	d.before, err = d.cluster.ReadConsole(web)
	d.show.done("the last record that web01 had acknowledged is %d", d.before.Acked())
	return err
}

// failover waits until web01 writes on beta: a second boot, that has scanned the disk and had a record
// acknowledged.
func (d *demo) failover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := d.b.Is(ctx, web, "ALONE"); err != nil {
		return err
	}
	var log guest.Log
	err := testcluster.Until(ctx, "web01 writes on beta", func() (err error) {
		log, err = d.cluster.ReadConsole(web)
		if b := log.Newest(); err == nil && (len(log.Boots) <= len(d.before.Boots) || len(b.Acks) == 0) {
			return errors.New("no record of its second boot yet")
		}
		return err
	})
	if err != nil {
		return err
	}
	firstWrite := time.Now()
	entries, err := d.transitions(ctx)
	if err != nil {
		return err
	}
	d.phases(entries, firstWrite)
	return d.present(log)
}

// present fails unless every acknowledged record was found by the second boot.
func (d *demo) present(log guest.Log) error {
	b := log.Newest()
	if b.Last < d.before.Acked() || b.Holes+b.Torn+b.Breaks != 0 {
		return fmt.Errorf("web01 lost data: %d acknowledged, the disk ends at %d with %d holes", d.before.Acked(), b.Last,
			b.Holes)
	}
	d.show.done("every acknowledged record is there: %d acknowledged, %d on the disk, no hole", d.before.Acked(), b.Last)
	d.show.note("acknowledged records lost", "0 of %d", d.before.Acked())
	return nil
}
