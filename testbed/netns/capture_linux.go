package netns

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Frame is one that a node has sent.
type Frame struct {
	At   time.Time // when it reached the switch, by the kernel's clock, to the microsecond
	Text string    // what tcpdump says of it
}

// Capture notes what a node sends in a network from now on, as the switch sees it; filter is in tcpdump's words.
// It returns when tcpdump listens. stop ends it and may be called once; it fails if frames were lost. Who does
// not call stop leaves a tcpdump and a goroutine, until Close kills the one. What is captured is kept in memory.
func (l *LAN) Capture(node, network, filter string) (stop func() ([]Frame, error), err error) {
	// In immediate mode the kernel keeps a slot of -s bytes for each frame: by default eight in all, which a busy
	// computer overruns.
	cmd := exec.Command("tcpdump", "-i", portName(node, network), "-Q", "in", "--immediate-mode", "-s", "256",
		"-B", "8192", "-l", "-n", "-e", "-tt", filter)
	said, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := l.Do(Switch, cmd.Start); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	begun := make(chan bool, 1) // true: it listens; false: it has ended
	var words strings.Builder   // what it says besides; whoever looks waits for wg first
	var wg sync.WaitGroup
	wg.Go(func() {
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			words.WriteString(lines.Text() + "\n")
			if strings.HasPrefix(lines.Text(), "listening on ") {
				begun <- true
			}
		}
		_, _ = io.Copy(io.Discard, said)
		select {
		case begun <- false:
		default:
		}
	})
	stop = func() ([]Frame, error) {
		err := cmd.Process.Signal(os.Interrupt)
		wg.Wait()
		if err = errors.Join(err, cmd.Wait()); err != nil {
			return nil, fmt.Errorf("capture: %w: %s", err, words.String())
		}
		if !strings.Contains(words.String(), "\n0 packets dropped by kernel") {
			return nil, fmt.Errorf("capture: frames were lost: %s", words.String())
		}
		return frames(out.String())
	}
	if !<-begun {
		wg.Wait()
		return nil, fmt.Errorf("capture: %w: %s", cmd.Wait(), words.String())
	}
	return stop, nil
}

// frames reads what tcpdump printed: a line for each frame, which begins with the seconds since 1970, and
// indented ones about some. Microseconds since 1970 still fit into a float64 to the microsecond.
func frames(text string) (out []Frame, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if line == "" || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		at, rest, _ := strings.Cut(line, " ")
		seconds, err := strconv.ParseFloat(at, 64)
		if err != nil {
			return nil, fmt.Errorf("read what tcpdump says: %w", err)
		}
		out = append(out, Frame{time.UnixMicro(int64(seconds * 1e6)), rest})
	}
	return out, nil
}
