package guard

import (
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// maxWord bounds a word and an answer, in bytes.
const maxWord = 1 << 20

// Link is the daemon's way to the guard. It is for one goroutine.
type Link struct {
	socket  string
	timeout time.Duration
	conn    net.Conn
	in      *json.Decoder
}

// NewLink returns a link that is not connected; a word waits for its answer at most for timeout.
func NewLink(socket string, timeout time.Duration) *Link {
	return &Link{socket: socket, timeout: timeout}
}

// Say tells the guard and returns its answer. After an error the next one connects anew. It blocks for the timeout
// twice at most, connecting and speaking. An error does not say that the guard did not hear.
func (l *Link) Say(w Word) (Report, error) {
	r, err := l.say(w)
	if err != nil {
		l.Close()
		return Report{}, fmt.Errorf("tell the guard: %w", err)
	}
	return r, nil
}

func (l *Link) say(w Word) (r Report, err error) {
	if l.conn == nil {
		if l.conn, err = net.DialTimeout("unix", l.socket, l.timeout); err != nil {
			return r, err
		}
		l.in = json.NewDecoder(l.conn)
	}
	if err := l.conn.SetDeadline(time.Now().Add(l.timeout)); err != nil {
		return r, err
	}
	if err := json.NewEncoder(l.conn).Encode(w); err != nil {
		return r, err
	}
	return r, l.in.Decode(&r)
}

// Close ends the connection, which says nothing to the guard: what counts is what was said.
func (l *Link) Close() {
	if l.conn != nil {
		_ = l.conn.Close() // every word was answered or given up
		l.conn = nil
	}
}
