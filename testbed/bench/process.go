package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// process is one program the bench started. Ours are talked to through orders and news.
type process struct {
	cmd    *exec.Cmd
	stdin  io.Closer     // nil for a program of others
	orders *json.Encoder // to a child of ours
	news   *json.Decoder // from it
}

// startTool starts a program of others; it ends by signal. What it says on standard error is shown. Nothing ends
// it but stop and the end of ctx.
func startTool(ctx context.Context, name string, args ...string) (*process, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return &process{cmd: cmd}, nil
}

// startChild starts this program as a node and gives it its first order. It is this executable with one
// argument, so the figures are of one build.
func startChild(ctx context.Context, o order) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, childArg)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Role, err)
	}
	p := &process{cmd: cmd, stdin: in, orders: json.NewEncoder(in), news: json.NewDecoder(out)}
	if err := p.orders.Encode(o); err != nil {
		p.stop()
		return nil, fmt.Errorf("instruct %s: %w", o.Role, err)
	}
	return p, nil
}

// expect reads the next news, which must be of this kind. It waits without a limit of its own; the child has one
// for its synchronisation, and its end is an error here.
func (p *process) expect(is string) (n news, err error) {
	if err := p.news.Decode(&n); err != nil {
		return n, fmt.Errorf("wait for %q: %w", is, err)
	}
	if n.Is != is {
		return n, fmt.Errorf("wait for %q: got %q", is, n.Is)
	}
	return n, nil
}

// endPatience: for the end of a process, for a socket to appear and for a handshake.
const endPatience = 10 * time.Second

// stop ends the process and waits for it: ours by closing their input, others by a signal, and whoever does not
// listen by force. It may be called once.
func (p *process) stop() {
	if p.stdin != nil {
		p.stdin.Close()
	} else {
		_ = p.cmd.Process.Signal(os.Interrupt)
	}
	force := time.AfterFunc(endPatience, func() { _ = p.cmd.Process.Kill() })
	defer force.Stop()
	_ = p.cmd.Wait() // a process ended by us has nothing to say
}

// awaitSocket waits until something listens.
func awaitSocket(ctx context.Context, network, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial(network, addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", addr, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// newImage makes an image whose every byte is allocated and in the page cache,
// written in steps of fill bytes. The step decides how large the kernel's folios
// are, and a small write into a large folio costs it more than any server here.
func newImage(dir, name string, size, fill int64) (string, error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	p := make([]byte, fill)
	for i := range p {
		p[i] = byte(i)
	}
	for off := int64(0); off < size && err == nil; off += int64(len(p)) {
		_, err = f.Write(p[:min(int64(len(p)), size-off)])
	}
	return path, errors.Join(err, f.Sync(), f.Close())
}
