//go:build unix

package gossip

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"duet/cluster"
)

func startChild(t *testing.T, port int, d time.Duration) (*exec.Cmd, <-chan string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", childPort, port), childDetection+"="+d.String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			lines <- sc.Text()
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
		cmd.Wait()
	})
	return cmd, lines
}

// TestKilledAndFrozenProcess: SIGKILL is noticed in time with the default settings, and
// SIGSTOP makes the others suspect the frozen one but not the other way round.
func TestKilledAndFrozenProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s of real time")
	}
	tm := newTeam(t, nil, freePort(t), cluster.DefaultDetection, "a", "b")
	a := tm.start("a")
	cmd, lines := startChild(t, tm.cfg.Port, cluster.DefaultDetection)
	await(t, a, "meeting", bothPaths("b"))

	cmd.Process.Signal(syscall.SIGSTOP)
	await(t, a, "silence of the frozen", silent("b"))
	timer := time.NewTimer(2 * time.Second)
	<-timer.C
	cmd.Process.Signal(syscall.SIGCONT)
	await(t, a, "return of the frozen", bothPaths("b"))
	timer.Reset(time.Second)
	<-timer.C

	cmd.Process.Kill()
	if d := await(t, a, "silence of the killed", silent("b")); d < 1200*time.Millisecond || d > 2*time.Second {
		t.Errorf("noticed after %v", d)
	}
	seen := 0
	for l := range lines { // "alive suspected"
		seen++
		if l != "true false" && l != "false false" {
			t.Errorf("the frozen one saw: %s", l)
		}
	}
	if seen < 2 {
		t.Errorf("the frozen one saw %d pictures", seen)
	}
}
