package badgerlog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"duet/blockrepl"
)

// childDir names the directory for a test binary that plays the child.
const childDir = "BADGERLOG_TEST_DIR"

// child runs as the second process of a test: it commits and prints the number
// of each acknowledged commit until it is killed.
func child() bool {
	dir := os.Getenv(childDir)
	if dir == "" {
		return false
	}
	s, err := Open(Config{Dir: dir, MinFree: 1 << 20})
	if err != nil {
		fmt.Println("error:", err)
		return true
	}
	l := s.Log("v")
	start, _, err := l.Load()
	if err != nil {
		fmt.Println("error:", err)
		return true
	}
	slots := make(chan struct{}, 64)
	for i := len(start); ; i++ {
		slots <- struct{}{}
		l.Commit([]blockrepl.Entry{{Extent: uint32(i), Dirty: uint64(i) + 1}}, nil, func(err error) {
			if err != nil {
				fmt.Println("error:", err)
			}
			fmt.Println(i)
			<-slots
		})
	}
}

func startChild(t *testing.T, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestKilledInTheMiddle kills a committing process with SIGKILL again and again:
// every commit it printed must be there, with no gap before the last one.
func TestKilledInTheMiddle(t *testing.T) {
	dir := t.TempDir()
	acked := -1
	for round := range 6 {
		cmd, out := startChild(t, dir)
		for n := 0; n < 200+round*150 && out.Scan(); n++ {
			if strings.HasPrefix(out.Text(), "error") {
				t.Error(out.Text())
			}
			fmt.Sscan(out.Text(), &acked)
		}
		cmd.Process.Kill()
		for out.Scan() { // what was acknowledged before the signal came
			fmt.Sscan(out.Text(), &acked)
		}
		cmd.Wait()
		s := open(t, dir)
		es, _ := mustLoad(t, s.Log("v"))
		if len(es) <= acked {
			t.Fatalf("round %d: %d entries, commit %d was acknowledged", round, len(es), acked)
		}
		for i, e := range es {
			if e.Extent != uint32(i) || e.Dirty != uint64(i)+1 {
				t.Fatalf("round %d: entry %d is %v", round, i, e)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if acked < 1000 {
		t.Errorf("only %d commits were acknowledged", acked)
	}
}

func TestSecondUserIsRefused(t *testing.T) {
	dir := t.TempDir()
	cmd, out := startChild(t, dir)
	if !out.Scan() {
		t.Fatal("child said nothing")
	}
	_, err := Open(Config{Dir: dir, MinFree: 1 << 20})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second open: %v", err)
	}
	cmd.Process.Kill()
	io.Copy(io.Discard, readerOf(out))
	cmd.Wait()
	open(t, dir) // a dead user does not count
}

// readerOf drains a scanner.
func readerOf(s *bufio.Scanner) io.Reader {
	for s.Scan() {
	}
	return strings.NewReader("")
}
