package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// qmp is a connection to QEMU's control socket. The whole conversation has patience as its limit.
type qmp struct {
	conn   net.Conn
	in     *json.Decoder
	out    *json.Encoder
	events []string // seen while waiting for answers
}

// mirror exports the source and starts the mirror job; it returns when the job is ready. The connection is
// closed then; job and export belong to the daemon and go on. write-blocking is the mode in which a write is
// answered when both sides have it, which is what ours promises.
func mirror(ctx context.Context, socket string) error {
	q, err := dialQMP(ctx, socket)
	if err != nil {
		return err
	}
	defer q.conn.Close()
	for _, c := range []struct {
		command string
		args    map[string]any
	}{
		{"qmp_capabilities", nil},
		{"block-export-add",
			map[string]any{"type": "nbd", "id": "export", "node-name": "source", "name": exportName, "writable": true}},
		{"blockdev-mirror",
			map[string]any{"job-id": "mirror", "device": "source", "target": "target", "sync": "full",
				"copy-mode": "write-blocking"}},
	} {
		if err := q.execute(c.command, c.args); err != nil {
			return err
		}
	}
	return q.await("BLOCK_JOB_READY")
}

func dialQMP(ctx context.Context, socket string) (*qmp, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	q := &qmp{conn: conn, in: json.NewDecoder(conn), out: json.NewEncoder(conn)}
	var greeting map[string]any
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := q.in.Decode(&greeting); err != nil {
		conn.Close()
		return nil, fmt.Errorf("greet qmp: %w", err)
	}
	return q, nil
}

// reply is an answer or an event.
type reply struct {
	Return json.RawMessage
	Error  *struct{ Desc string }
	Event  string
}

// execute: events come between answers at any time and are kept for await. It returns nothing, as no answer is
// needed here.
func (q *qmp) execute(command string, args map[string]any) error {
	m := map[string]any{"execute": command}
	if args != nil {
		m["arguments"] = args
	}
	if err := q.out.Encode(m); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	for {
		var r reply
		if err := q.in.Decode(&r); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		switch {
		case r.Error != nil:
			return fmt.Errorf("%s: %s", command, r.Error.Desc)
		case r.Event != "":
			q.events = append(q.events, r.Event)
		default:
			return nil
		}
	}
}

// await returns when the event was seen. One that came before, and was kept, counts. A job that fails sends
// another event, so that ends by the limit of the connection.
func (q *qmp) await(event string) error {
	for {
		for _, e := range q.events {
			if e == event {
				return nil
			}
		}
		q.events = nil
		var r reply
		if err := q.in.Decode(&r); err != nil {
			return fmt.Errorf("wait for %s: %w", event, err)
		}
		if r.Event != "" {
			q.events = append(q.events, r.Event)
		}
	}
}
