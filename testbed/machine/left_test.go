//go:build linux

package machine

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNothingIsLeft: when the process that has machines is killed, they die, and the next one removes what they had.
func TestNothingIsLeft(t *testing.T) {
	needs(t, "systemd-nspawn", "nsenter", "nft", "ip")
	const prefix, child = "dml", "DUET_MACHINE_CHILD"
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute) // the first run makes the image
	defer cancel()
	if os.Getenv(child) != "" {
		s := site(ctx, t, prefix, 3, Spec{Name: "one", Release: Debian12})
		must(t, s.Machines["one"].Boot(ctx))
		os.Stdout.WriteString(s.Machines["one"].(*container).disk.dir + "\n")
		<-ctx.Done()
		return
	}
	if _, err := Host(ctx, cache(t), Debian12); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestNothingIsLeft$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	dir := filepath.Clean(line[:max(0, len(line)-1)])
	if _, e := os.Stat(filepath.Join(dir, "console")); err != nil || e != nil {
		t.Fatalf("the other process says %q: %v, %v", line, err, e)
	}
	must(t, cmd.Process.Signal(unix.SIGKILL))
	_ = cmd.Wait() // it was killed

	g, err := newGroup(prefix, "one")
	must(t, err)
	for { // nothing of ours kills them: the kernel does, as their parent died
		alive, err := g.populated()
		must(t, err)
		if !alive {
			break
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the machine lives on")
		}
	}
	s := site(ctx, t, prefix, 3, Spec{Name: "one", Release: Debian12})
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its disk is still there: %v", err)
	}
	must(t, s.Machines["one"].Boot(ctx))
}
