package main

import (
	"os"
	"strings"
	"testing"
)

// TestMain: what bench starts as its child is this program, which would begin the tests, and so children, anew.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

// A target just reached is met, one just missed is not, one not measured is left out.
func TestJudge(t *testing.T) {
	r := results{Runs: make(map[string]map[string][]float64)}
	r.add("write-qd32", "replicated-tls", 4000)
	r.add("write-qd32", "mirror", 1000)
	var b strings.Builder
	if !r.print(&b) || len(r.Ratios) != 1 || r.Ratios[0].Got != 4 {
		t.Errorf("reached: %+v", r.Ratios)
	}
	r.add("write-qd32", "qemu-nbd", 4001)
	if r.print(&b) || len(r.Ratios) != 2 || r.Ratios[1].Met {
		t.Errorf("missed: %+v", r.Ratios)
	}
	if !strings.Contains(b.String(), "MISSED") {
		t.Errorf("the table hides it:\n%s", &b)
	}
}

// TestUnknownNames: nothing is measured for a name that is not there.
func TestUnknownNames(t *testing.T) {
	for _, o := range []options{{only: []string{"alone", "mirorr"}}, {jobs: []string{"write-qd2"}}} {
		o.rounds, o.seconds, o.size, o.fill, o.dir = 1, 1, 1<<20, 4<<10, t.TempDir()
		if _, err := bench(t.Context(), o); err == nil || !strings.Contains(err.Error(), "there is no") {
			t.Errorf("%v %v: %v", o.only, o.jobs, err)
		}
	}
}

func TestKeys(t *testing.T) {
	near, far, err := newKeys()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*keys{near, far} {
		if _, err := k.config(); err != nil {
			t.Error(err)
		}
	}
}
