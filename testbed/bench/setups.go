package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
)

// setup is one of the things compared. It serves exportName on socket. start may leave processes in procs also
// when it fails; startAll notes them.
type setup struct {
	name   string
	start  func(ctx context.Context, s *setup) error
	dir    string // shared by all; files are named after the setup
	socket string // unix; where fio connects
	size   int64  // bytes of each image
	fill   int64
	procs  []*process // in the order of their start
}

// setups in the order of the table.
var setups = [...]setup{
	{name: "replicated-tls", start: func(ctx context.Context, s *setup) error { return startPair(ctx, s, true, false) }},
	{name: "replicated", start: func(ctx context.Context, s *setup) error { return startPair(ctx, s, false, false) }},
	{name: "sleepy", start: func(ctx context.Context, s *setup) error { return startPair(ctx, s, true, true) }},
	{name: "alone", start: startAlone},
	{name: "mirror", start: startMirror},
	{name: "qemu-nbd", start: startQemuNBD},
}

// startAll starts the chosen setups. stop ends every process, also after an error. They are ended in the reverse
// order of their start, so that a server goes after its client.
func startAll(ctx context.Context, dir string, o options) (running []setup, stop func(), err error) {
	stop = func() {
		for _, s := range running {
			for i := len(s.procs) - 1; i >= 0; i-- {
				s.procs[i].stop()
			}
		}
	}
	for i, s := range setups {
		if !chosen(o.only, s.name) {
			continue
		}
		// The paths of unix sockets must stay short.
		s.dir, s.socket = dir, filepath.Join(dir, fmt.Sprintf("%d.sock", i))
		s.size, s.fill = o.size, o.fill
		err := s.start(ctx, &s)
		running = append(running, s) // with what was started before it failed
		if err != nil {
			return running, stop, fmt.Errorf("start %s: %w", s.name, err)
		}
	}
	return running, stop, nil
}

func (s *setup) child(ctx context.Context, o order) (*process, error) {
	image, err := newImage(s.dir, s.name+"-"+o.Role, s.size, s.fill)
	if err != nil {
		return nil, err
	}
	o.Image, o.Log = image, image+".log"
	p, err := startChild(ctx, o)
	if err == nil {
		s.procs = append(s.procs, p)
	}
	return p, err
}

// startPair brings up a volume on two nodes and waits until both copies are complete. The bench carries the
// ticket from one to the other, as engines do.
func startPair(ctx context.Context, s *setup, secure, sleepy bool) error {
	var near, far *keys
	if secure {
		var err error
		if near, far, err = newKeys(); err != nil {
			return err
		}
	}
	second, err := s.child(ctx, order{Role: "secondary", TLS: far, Sleepy: sleepy})
	if err != nil {
		return err
	}
	at, err := second.expect("listening")
	if err != nil {
		return err
	}
	first, err := s.child(ctx, order{Role: "primary", Socket: s.socket, Peer: at.Addr, TLS: near, Sleepy: sleepy})
	if err != nil {
		return err
	}
	drained, err := first.expect("drained")
	if err != nil {
		return err
	}
	if err := second.orders.Encode(order{Ticket: drained.Ticket}); err != nil {
		return err
	}
	if _, err := second.expect("complete"); err != nil {
		return err
	}
	if err := first.orders.Encode(order{}); err != nil {
		return err
	}
	_, err = first.expect("serving")
	return err
}

// startAlone brings up our volume with one copy; its dirty log is durable as in a pair.
func startAlone(ctx context.Context, s *setup) error {
	p, err := s.child(ctx, order{Role: "alone", Socket: s.socket})
	if err != nil {
		return err
	}
	_, err = p.expect("serving")
	return err
}

// qemuNBD serves an image the way an admin would for speed. As fast as it can be made: page cache, threads, and
// as many clients as fio may have.
func (s *setup) qemuNBD(ctx context.Context, role string, listen ...string) error {
	image, err := newImage(s.dir, s.name+"-"+role, s.size, s.fill)
	if err != nil {
		return err
	}
	args := append([]string{"--persistent", "--shared=8", "--format=raw", "--cache=writeback", "--aio=threads",
		"--export-name=" + exportName}, listen...)
	p, err := startTool(ctx, "qemu-nbd", append(args, image)...)
	if err == nil {
		s.procs = append(s.procs, p)
	}
	return err
}

func startQemuNBD(ctx context.Context, s *setup) error {
	if err := s.qemuNBD(ctx, "image", "--socket="+s.socket); err != nil {
		return err
	}
	return awaitSocket(ctx, "unix", s.socket)
}

// startMirror has a storage daemon mirror its image to a qemu-nbd and waits until
// the two are in step, from when on every write goes to both before it is answered.
func startMirror(ctx context.Context, s *setup) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	if err := s.qemuNBD(ctx, "target", "--bind=127.0.0.1", "--port="+port); err != nil {
		return err
	}
	if err := awaitSocket(ctx, "tcp", net.JoinHostPort("127.0.0.1", port)); err != nil {
		return err
	}
	image, err := newImage(s.dir, s.name+"-source", s.size, s.fill)
	if err != nil {
		return err
	}
	control := s.socket + ".qmp"
	p, err := startTool(ctx, "qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=file0,filename="+image+",aio=threads,cache.direct=off",
		"--blockdev", "driver=raw,node-name=source,file=file0",
		"--blockdev", "driver=nbd,node-name=target,server.type=inet,server.host=127.0.0.1,server.port="+port+
			",export="+exportName,
		"--nbd-server", "addr.type=unix,addr.path="+s.socket,
		"--chardev", "socket,id=control,path="+control+",server=on,wait=off",
		"--monitor", "chardev=control")
	if err != nil {
		return err
	}
	s.procs = append(s.procs, p)
	if err := awaitSocket(ctx, "unix", control); err != nil {
		return err
	}
	return mirror(ctx, control)
}

// freePort: another program may take it before it is used; then the start fails.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, err
}
