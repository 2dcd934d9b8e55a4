package machine

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"
)

// agent speaks with Debian's QEMU guest agent, through which commands and files get into a machine without a
// network. It is not locked: as QEMU serves one connection at a time, a second one waits in its backlog and
// fails by syncing.
type agent struct {
	socket string // QEMU's end of the agent's port
}

// session is one connection to the agent. QEMU takes one at a time.
type session struct {
	conn net.Conn
	in   *bufio.Reader
	end  func() bool // takes back that the end of ctx closes conn
}

// syncing is the time the agent has to answer at all: it is not there before the machine has booted.
const syncing = 5 * time.Second

// open: the deadline for the first answer holds whatever ctx says. From then on the end of ctx closes the
// connection, which ends every call.
func (a *agent) open(ctx context.Context) (*session, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", a.socket)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, in: bufio.NewReader(conn)}
	if err := s.sync(); err != nil {
		return nil, errors.Join(fmt.Errorf("the guest agent does not answer: %w", err), conn.Close())
	}
	s.end = context.AfterFunc(ctx, func() { conn.Close() })
	return s, nil
}

func (s *session) close() {
	s.end()
	s.conn.Close()
}

// sync skips what an earlier session has not read: the agent answers with the mark 0xff before. An answer with
// another id belongs to a session that was given up; the agent has no other way to tell.
func (s *session) sync() error {
	if err := s.conn.SetDeadline(time.Now().Add(syncing)); err != nil {
		return err
	}
	id := rand.Int32()
	const question = "\xff" + `{"execute":"guest-sync-delimited","arguments":{"id":%d}}` + "\n"
	if _, err := fmt.Fprintf(s.conn, question, id); err != nil {
		return err
	}
	for {
		if _, err := s.in.ReadBytes(0xff); err != nil {
			return err
		}
		var got int32
		if err := s.answer(&got); err == nil && got == id {
			return s.conn.SetDeadline(time.Time{})
		}
	}
}

// answer reads one line into result, which must take what the command returns; an error of the agent is one
// here.
func (s *session) answer(result any) error {
	line, err := s.in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var reply struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Desc string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &reply); err != nil {
		return fmt.Errorf("guest agent: %w", err)
	}
	if reply.Error != nil {
		return fmt.Errorf("guest agent: %s", reply.Error.Desc)
	}
	return json.Unmarshal(reply.Return, result)
}

// call: one call at a time: answers have no number.
func (s *session) call(command string, arguments map[string]any, result any) error {
	b, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if err != nil {
		return err
	}
	if _, err := s.conn.Write(append(b, '\n')); err != nil {
		return err
	}
	return s.answer(result)
}

// run runs a shell command to its end. It gives up when the machine goes off. A command whose ctx ends goes on
// inside; only its result is lost.
func (a *agent) run(ctx context.Context, off <-chan struct{}, command string) (Result, error) {
	ctx, cancel := whileOn(ctx, off)
	defer cancel()
	s, err := a.open(ctx)
	if err != nil {
		return Result{}, because(ctx, err)
	}
	defer s.close()
	r, err := s.run(ctx, command)
	return r, because(ctx, err)
}

// run: the agent keeps what a command says until it has ended, in memory, and forgets what is beyond its own
// limit of 16 MiB.
func (s *session) run(ctx context.Context, command string) (Result, error) {
	var started struct {
		PID int `json:"pid"`
	}
	err := s.call("guest-exec", map[string]any{
		"path": "/bin/sh", "arg": []string{"-c", "exec 2>&1\n" + command}, "env": environment, "capture-output": true,
	}, &started)
	if err != nil {
		return Result{}, err
	}
	for {
		var st struct {
			Exited bool   `json:"exited"`
			Code   *int   `json:"exitcode"` // nil if a signal ended it
			Out    []byte `json:"out-data"`
		}
		if err := s.call("guest-exec-status", map[string]any{"pid": started.PID}, &st); err != nil {
			return Result{}, err
		}
		if st.Exited {
			r := Result{Output: strings.TrimRight(string(st.Out), "\n"), Code: -1}
			if st.Code != nil {
				r.Code = *st.Code
			}
			return r, nil
		}
		select {
		case <-time.After(50 * time.Millisecond): // the agent has no call that waits
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}
}

// chunk is how much of a file goes into one message.
const chunk = 256 << 10

// push copies a file in, with its mode.
func (a *agent) push(ctx context.Context, off <-chan struct{}, file, path string) error {
	ctx, cancel := whileOn(ctx, off)
	defer cancel()
	s, err := a.open(ctx)
	if err != nil {
		return because(ctx, err)
	}
	defer s.close()
	return because(ctx, s.push(ctx, file, path))
}

// push: a path must not have a quote in it. Half a file stays if it fails.
func (s *session) push(ctx context.Context, file, path string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	const making = `mkdir -p "$(dirname '%[1]s')" && : >'%[1]s' && chmod %[2]o '%[1]s'`
	r, err := s.run(ctx, fmt.Sprintf(making, path, st.Mode().Perm()))
	if err == nil && r.Code != 0 {
		err = errors.New(r.Output)
	}
	if err != nil {
		return err
	}
	var handle int
	if err := s.call("guest-file-open", map[string]any{"path": path, "mode": "w"}, &handle); err != nil {
		return err
	}
	buf := make([]byte, chunk)
	for {
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			text := base64.StdEncoding.EncodeToString(buf[:n])
			err := s.call("guest-file-write", map[string]any{"handle": handle, "buf-b64": text}, &struct{}{})
			if err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return s.call("guest-file-close", map[string]any{"handle": handle}, &struct{}{})
		}
		if err != nil {
			return err
		}
	}
}

var errOff = errors.New("it went off")

// whileOn ends with the machine. The goroutine ends when the returned function is called.
func whileOn(ctx context.Context, off <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-off:
			cancel(errOff)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// because prefers the reason why ctx ended to what broke by its end. So whoever waits reads that the machine
// went off, or that the time was up, and not of a closed connection.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
