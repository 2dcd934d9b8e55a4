//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

const (
	copyLook  = 250 * time.Millisecond // between two looks at a copy
	abortTime = 30 * time.Second       // for leaving a VM as it was after a copy failed
	// copyFlags: into a target that exists; a persistent VM may do it because the job
	// need not survive QEMU. Not DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES, although a copy under load
	// would then surely end: QEMU 7.2 dies, and the guest with it, when the destination goes
	// away while such a write is on its way (one in ten or so under load, testAdoptFails).
	copyFlags       = libvirt.DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.DOMAIN_BLOCK_COPY_TRANSIENT_JOB
	copyGranularity = 64 << 10 // bytes of a part that is copied as a whole
)

// copyJob moves one disk of a running VM to another place. One goroutine runs it, which also calls progress.
type copyJob struct {
	h        *Hypervisor
	name     string           // of the VM
	target   string           // of the disk
	to       string           // <disk> element of the destination
	there    func(disk) bool  // reports whether a live disk is at the destination
	fit      func(disk) error // refuses a live disk that must not be moved there; may be nil
	progress func(done, total int64)
	socket   string        // of the destination; empty: it is a file, whose owner libvirt sets
	blockJob chan struct{} // receives when libvirt reports news of a block job
}

// Adopt copies a disk of a running VM into the endpoint while it runs and switches
// the VM over to it. The running VM must already pause on disk errors, or libvirt
// must know <reconnect>: neither can be changed while a guest runs, and without
// either the guest would see an error when the daemon restarts. Success means that the live definition has the disk
// on the endpoint and no copy is under way. After an error it is on its old disk, or the VM has stopped, or the
// error says that the copy may still go on. It takes as long as the disk and the guest's writes do; only ctx limits
// it.
func (h *Hypervisor) Adopt(ctx context.Context, name string, to vmmanager.Endpoint,
	progress func(done, total int64)) error {
	job := &copyJob{
		h: h, name: name, target: to.Target, progress: progress, socket: to.Socket,
		to: "<disk type='network' device='disk'><driver name='qemu' type='raw'/>" +
			endpointSource(to.Socket, "", h.reconnect) + "</disk>",
		there: func(d disk) bool { return d.socket() == to.Socket },
		fit:   func(d disk) error { return adoptable(d, h.reconnect) },
	}
	if err := job.run(ctx); err != nil {
		return fmt.Errorf("adopt disk %s of %s: %w", to.Target, name, err)
	}
	return nil
}

// Release copies a disk of a running VM from its endpoint into an image or block
// device that exists and has the disk's size, and switches the VM over to it. The same holds as for Adopt.
func (h *Hypervisor) Release(ctx context.Context, name string, to vmmanager.Disk,
	progress func(done, total int64)) error {
	kind, attr := "file", "file"
	if to.Block {
		kind, attr = "block", "dev"
	}
	job := &copyJob{
		h: h, name: name, target: to.Target, progress: progress,
		to: startTag("disk", set("type", kind, "device", "disk")) + ">" +
			startTag("driver", set("name", "qemu", "type", cmp.Or(to.Format, "raw"))) + "/>" +
			startTag("source", set(attr, to.Path)) + "/></disk>",
		there: func(d disk) bool { return d.path() == to.Path },
	}
	if err := job.run(ctx); err != nil {
		return fmt.Errorf("release disk %s of %s: %w", to.Target, name, err)
	}
	return nil
}

// adoptable refuses a live disk whose guest would see errors of its endpoint.
func adoptable(d disk, reconnect bool) error {
	if why := d.obstacle(); why != "" {
		return fmt.Errorf("%w: it %s", vmmanager.ErrUnsupported, why)
	}
	driver := d.child("driver")
	if !reconnect && (driver.attr("error_policy") != "stop" || driver.attr("rerror_policy") != "stop") {
		return fmt.Errorf("%w: the running guest would see an I/O error when Duet restarts: set error_policy='stop' "+
			"rerror_policy='stop' "+
			"on the disk's driver and start the VM anew, or refit it, or protect it while it is off", vmmanager.ErrUnsupported)
	}
	return nil
}

// run does the job. It looks at the VM rather than trusting events: they only wake it early. So it may be repeated
// after any death: a disk that is there is done, a copy of Duet's that was left is ended and made anew, somebody
// else's is ErrUnavailable.
func (j *copyJob) run(ctx context.Context) error {
	here, err := j.look(ctx)
	if err != nil || j.there(here.disk) && !here.copying() {
		return err
	}
	if here.copying() {
		if !j.ours(here) {
			return fmt.Errorf("%w: another copy of the disk is under way", vmmanager.ErrUnavailable)
		}
		// A process that died has begun it. What it copied is not to be trusted.
		if err := j.abort(ctx, errLeft); !errors.Is(err, errLeft) {
			return err
		}
	}
	if j.fit != nil {
		if err := j.fit(here.disk); err != nil {
			return err
		}
	}
	j.blockJob = make(chan struct{}, 1)
	unlisten, err := j.listen(ctx)
	if err != nil {
		return err
	}
	defer unlisten()
	err = j.start(ctx)
	if err == nil {
		err = j.awaitReady(ctx)
	}
	if err == nil {
		err = j.pivot(ctx)
	}
	if err == nil {
		return nil
	}
	return j.abort(ctx, err)
}

// errStopped says that there is no running VM any more whose disk could be copied.
var errStopped = errors.New("the VM does not run")

// errLeft says that a copy of an earlier process was ended.
var errLeft = errors.New("copy of an earlier process")

// ours reports whether the copy under way is one that Duet makes: to where this job
// wants the disk, or into an endpoint.
func (j *copyJob) ours(l live) bool {
	mirror := l.child("mirror")
	to := disk{element: mirror, kind: mirror.attr("type")}
	return j.there(to) || to.socket() != ""
}

// live is one disk of the running VM.
type live struct {
	disk
	done, total int64
}

// copying reports whether a copy of the disk is under way.
func (l live) copying() bool { return l.child("mirror") != nil }

// ready reports whether source and destination are the same from now on.
func (l live) ready() bool { return l.child("mirror").attr("ready") == "yes" }

// look reads the live definition and the progress of the copy.
func (j *copyJob) look(ctx context.Context) (live, error) {
	return of(ctx, j.h, j.name, readTime, func(dom *libvirt.Domain) (live, error) {
		// The text of one that is off is the persistent definition, whose disks say nothing of a copy.
		if active, err := dom.IsActive(); err != nil {
			return live{}, err
		} else if !active {
			return live{}, errStopped
		}
		text, err := dom.GetXMLDesc(0)
		if err != nil {
			return live{}, err
		}
		domain, err := parseXML([]byte(text))
		if err != nil {
			return live{}, err
		}
		d, ok := findDisk(domain, j.target)
		if !ok {
			return live{}, fmt.Errorf("%w: the VM has no such disk", vmmanager.ErrUnsupported)
		}
		now := live{disk: d}
		// No job is no error, and the progress is only for the admin to see.
		if info, err := dom.GetBlockJobInfo(j.target, 0); err == nil && info != nil {
			now.done, now.total = int64(info.Cur), int64(info.End)
		}
		return now, nil
	})
}

// listen has block job events wake the job until the returned function is called. They are those of all VMs, and
// one that is lost costs copyLook: run looks anyway. The function waits until its connection is closed.
func (j *copyJob) listen(ctx context.Context) (func(), error) {
	stop := make(chan struct{})
	stopped := make(chan struct{})
	registered := make(chan error, 1)
	err := j.h.spawn(ctx, func(conn *libvirt.Connect) {
		defer close(stopped)
		defer conn.Close()
		id, err := conn.DomainEventBlockJob2Register(nil,
			func(*libvirt.Connect, *libvirt.Domain, *libvirt.DomainEventBlockJob) {
				select {
				case j.blockJob <- struct{}{}:
				default:
				}
			})
		registered <- translate(err)
		if err == nil {
			<-stop
			_ = conn.DomainEventDeregister(id)
		}
	}, func(err error) {
		defer close(stopped)
		registered <- err
	})
	if err != nil {
		return nil, err
	}
	select {
	case err := <-registered:
		return func() { close(stop); <-stopped }, err
	case <-ctx.Done():
		close(stop)
		return nil, ctx.Err()
	}
}

// start begins the copy. Zeroes stay holes: QEMU copies allocated data only, and
// asks the destination to unmap the rest. QEMU opens the destination at once, so a socket is given away before.
func (j *copyJob) start(ctx context.Context) error {
	return j.h.with(ctx, j.name, writeTime, func(conn *libvirt.Connect, dom *libvirt.Domain) error {
		if j.socket != "" {
			if err := j.h.grant(conn, dom, j.socket); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return dom.BlockCopy(j.target, j.to, &libvirt.DomainBlockCopyParameters{
			GranularitySet: true, Granularity: copyGranularity,
		}, copyFlags)
	})
}

// awaitReady waits until both sides are the same.
func (j *copyJob) awaitReady(ctx context.Context) error {
	for {
		now, err := j.look(ctx)
		if err != nil {
			return err
		}
		if !now.copying() {
			return errors.New("the copy ended early, most likely because the destination failed: the log of QEMU has the reason")
		}
		if j.progress != nil && now.total > 0 {
			j.progress(now.done, now.total)
		}
		if now.ready() {
			return nil
		}
		timer := time.NewTimer(copyLook)
		select {
		case <-j.blockJob:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// pivot switches the VM over. What counts in the end is what the live definition says. An error of the call says
// little: libvirtd may have died after it.
func (j *copyJob) pivot(ctx context.Context) error {
	err := j.h.onDomain(ctx, j.name, writeTime, func(dom *libvirt.Domain) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return dom.BlockJobAbort(j.target, libvirt.DOMAIN_BLOCK_JOB_ABORT_PIVOT)
	})
	// Also after an error: the answer may have been lost after the deed.
	now, lookErr := j.look(ctx)
	switch {
	case lookErr == nil && j.there(now.disk) && !now.copying():
		return nil
	case err != nil:
		return fmt.Errorf("switch over: %w", err)
	case lookErr != nil:
		return lookErr
	}
	return errors.New("switch over: libvirt reports success, but the VM is still on its old disk")
}

// abort leaves the VM on its old disk after the copy failed because of cause,
// and says so if it could not. It works on when ctx has ended.
func (j *copyJob) abort(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	return j.end(ctx, cause)
}

// end is abort until ctx ends. Only what it has seen counts: an error of a look may be of libvirt or of ctx, and says
// nothing of the VM.
func (j *copyJob) end(ctx context.Context, cause error) error {
	for {
		now, err := j.look(ctx)
		switch {
		case err == nil && !now.copying() && j.there(now.disk):
			return nil // the switch over had just been made
		case err == nil && !now.copying():
			return cause
		case errors.Is(err, errStopped), errors.Is(err, vmmanager.ErrNotFound), errors.Is(err, vmmanager.ErrUnsupported):
			return cause // the VM has stopped, or has lost the disk, and the copy with it
		}
		// Errors show in the next look.
		_ = j.h.onDomain(ctx, j.name, writeTime, func(dom *libvirt.Domain) error { return dom.BlockJobAbort(j.target, 0) })
		if sleep(ctx, copyLook) != nil {
			return fmt.Errorf("%w; ending the copy failed too, it may still go on: %w", cause, errors.Join(err, ctx.Err()))
		}
	}
}
