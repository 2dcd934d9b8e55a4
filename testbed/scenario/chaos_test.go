package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"duet/testbed/chaos"
	"duet/testbed/testcluster"
)

var (
	schedules = flag.Int("schedules", 10, "random fault schedules of TestChaos")
	seed      = flag.Uint64("seed", 1, "seed of the first one; the next has the next number")
	pairs     = flag.Int("pairs", 1, "clusters that are struck at the same time; a schedule waits most of its time")
)

// TestChaos strikes a pair with random faults, one schedule after the other, and judges
// each. Three of four have a witness; the others go on when a ping target answers.
func TestChaos(t *testing.T) {
	needTools(t)
	var bad atomic.Int64
	t.Run("pairs", func(t *testing.T) {
		first, left := *seed, *schedules
		for k := range *pairs {
			n := left / (*pairs - k)
			began := first
			t.Run(fmt.Sprint(k+1), func(t *testing.T) {
				t.Parallel()
				witnessed := (n*3 + 3) / 4
				bad.Add(int64(campaign(t, 40+4*k, began, witnessed, true)))
				bad.Add(int64(campaign(t, 42+4*k, began+uint64(witnessed), n-witnessed, false)))
			})
			first, left = first+uint64(n), left-n
		}
	})
	t.Logf("%d schedules from seed %d, %d with a violation", *schedules, *seed, bad.Load())
}

// needTools skips a test where its cluster cannot be made.
func needTools(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces and runs libvirtd")
	}
	for _, tool := range []string{"libvirtd", "virsh", "qemu-system-x86_64", "nft", "ip", "mkfs.ext4", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: `make deps` installs it", tool)
		}
	}
}

// campaign runs n schedules from seed on and returns how many broke a promise. After
// one that did a new cluster is made.
func campaign(t *testing.T, subnet int, seed uint64, n int, witness bool) (bad int) {
	for n > 0 {
		pair, end := newPair(t, subnet, witness)
		for broken := false; n > 0 && !broken; n-- {
			if broken = !schedule(t, pair, chaos.Make(seed, witness)); broken {
				bad++
			}
			seed++
		}
		end()
	}
	return bad
}

func newPair(t *testing.T, subnet int, witness bool) (*chaos.Pair, func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "dch")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	pair, err := chaos.Build(ctx, testcluster.Config{Prefix: fmt.Sprintf("dch%d", subnet), Dir: dir, Bin: binaries(t),
		Cache: cache(), Subnet: subnet}, witness)
	if err != nil {
		for _, name := range []string{testcluster.Alpha, testcluster.Beta} {
			text, _ := os.ReadFile(filepath.Join(dir, name, "duetd.log"))
			t.Logf("duetd of %s:\n%s", name, transitions(string(text)))
		}
		t.Fatal(errors.Join(err, os.RemoveAll(dir)))
	}
	return pair, func() {
		if err := errors.Join(pair.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	}
}

// schedule runs one and reports whether it kept every promise.
func schedule(t *testing.T, pair *chaos.Pair, plan chaos.Plan) bool {
	ctx := bounded(t, 5*time.Minute)
	marks := map[string]int64{}
	for _, h := range pair.Hosts {
		if st, err := os.Stat(h.Log()); err == nil {
			marks[h.Log()] = st.Size()
		}
	}
	begin := time.Now()
	did, err := pair.Inject(ctx, plan)
	struck := time.Since(begin)
	var all []chaos.Violation
	if err != nil {
		all = []chaos.Violation{{What: "the test bed failed: " + err.Error()}}
	} else {
		all = pair.Judge(ctx, plan)
	}
	t.Logf("witness %v, struck %.1fs, judged %.1fs: %v", pair.Witness, struck.Seconds(),
		(time.Since(begin) - struck).Seconds(), plan)
	if len(all) == 0 {
		return true
	}
	for _, v := range all {
		t.Errorf("VIOLATION of schedule %d: %s\n%s", plan.Seed, v.What, v.Proof)
	}
	if err := pair.Dump(ctx); err != nil {
		t.Log(err)
	}
	t.Logf("what was done:\n%s", strings.Join(did, "\n"))
	for _, h := range pair.Hosts {
		text, err := os.ReadFile(h.Log())
		if err != nil {
			t.Error(err)
			continue
		}
		t.Logf("duetd of %s:\n%s", h.Name, transitions(string(text[min(marks[h.Log()], int64(len(text))):])))
	}
	return false
}

// transitions shortens a daemon's log to what explains it.
func transitions(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		var e map[string]any
		if json.Unmarshal([]byte(line), &e) != nil {
			b.WriteString(line) // a panic, or the goroutines
			continue
		}
		if msg, _ := e["msg"].(string); strings.Contains(msg, "memberlist:") {
			continue
		}
		at, _ := e["time"].(string)
		if len(at) > 23 {
			at = at[11:23]
		}
		fmt.Fprintf(&b, "%s %v", at, e["msg"])
		for _, k := range []string{"module", "from", "to", "on", "err"} {
			if v, ok := e[k]; ok {
				fmt.Fprintf(&b, " %s=%v", k, v)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
