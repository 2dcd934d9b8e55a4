package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"

	"duet/appmodules"
	"duet/appmodules/workload"
)

// Remote is the Room of duetd apps as the daemon sees it. Any goroutine may use it. What it is asked for ends with the
// ctx of the one who asks.
type Remote struct {
	client  *http.Client
	dir     string
	program []string
}

// Dial returns the Remote of a directory of duetd apps, whose block devices have program behind them (Config). It
// connects with each call: that process may come later.
func Dial(dir string, program []string) *Remote {
	var d net.Dialer
	socket := filepath.Join(dir, SocketName)
	return &Remote{dir: dir, program: program, client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := d.DialContext(ctx, "unix", socket)
			if err != nil {
				err = fmt.Errorf("duetd apps does not answer, which runs applications: `systemctl start duet-apps`: %w", err)
			}
			return c, err
		}, DisableKeepAlives: true}}}
}

// Behind returns nil for the process behind the block device of a module on this host. It asks nobody.
func (r *Remote) Behind(module string, pid int) error { return behind(r.dir, r.program, module, pid) }

// Of are the stages of an application, first to last.
func (r *Remote) Of(m appmodules.Module) []workload.Stage {
	a, _ := m.Spec.(appmodules.Application)
	var all []workload.Stage
	for i, label := range labels(a) {
		all = append(all, remote{r, order{Module: m, Stage: i}, label})
	}
	return all
}

// Make makes the file system of an application on an image of this host that is nobody's yet, and takes in its
// directories.
func (r *Remote) Make(ctx context.Context, m appmodules.Module, image string) error {
	_, err := r.ask(ctx, opMake, order{Module: m, Image: image})
	return err
}

// ask has an order carried out.
func (r *Remote) ask(ctx context.Context, op string, o order) (answer, error) {
	var got answer
	body, err := json.Marshal(o)
	if err != nil {
		return got, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://apps/"+op, bytes.NewReader(body))
	if err != nil {
		return got, err
	}
	res, err := r.client.Do(req)
	if err != nil {
		return got, errors.Join(ctx.Err(), errors.Unwrap(err)) // without the URL
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxOrder))
	if err == nil {
		err = json.Unmarshal(b, &got)
	}
	if err != nil {
		return got, fmt.Errorf("duetd apps: %s: %w", res.Status, err)
	}
	if got.Error != "" {
		return got, errors.New(got.Error)
	}
	return got, nil
}

// remote is one stage.
type remote struct {
	room  *Remote
	order order
	label string
}

func (s remote) Label() string { return s.label }

func (s remote) Up(ctx context.Context) (up, whole bool, err error) {
	a, err := s.room.ask(ctx, opUp, s.order)
	return a.Up, a.Whole, err
}

func (s remote) Start(ctx context.Context) error { return s.do(ctx, opStart) }
func (s remote) Stop(ctx context.Context) error  { return s.do(ctx, opStop) }
func (s remote) Kill(ctx context.Context) error  { return s.do(ctx, opKill) }

func (s remote) do(ctx context.Context, op string) error {
	_, err := s.room.ask(ctx, op, s.order)
	return err
}
