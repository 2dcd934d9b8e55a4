package metrics

import (
	"errors"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/cluster"
	"duet/console/api"
)

// house is what an exporter of alpha reads.
type house struct {
	states   []engine.State
	guard    *bool
	versions []api.Version
	broken   error // why versions cannot be read
}

func (h *house) exporter() *Exporter {
	return New(Config{
		Cluster: func() cluster.Config {
			return cluster.Config{Self: "alpha", Members: []cluster.Member{{Node: "alpha"}, {Node: "beta"}}}
		},
		View: func() cluster.View {
			return cluster.View{Peers: map[cluster.NodeID]cluster.PeerView{"beta": {Paths: map[string]bool{"hb1": true,
				"hb2": false}}}}
		},
		Witnesses: func() []Witness { return []Witness{{"w1:7430", true}, {"w2:7430", false}} },
		Guard:     func() *bool { return h.guard },
		Versions:  func() ([]api.Version, error) { return h.versions, h.broken },
		Modules:   func() []engine.State { return h.states },
	})
}

// web is a module that is primary on alpha.
func web() engine.State {
	return engine.State{Module: "web01", Record: cluster.Record{Epoch: 5, Holder: "alpha", Complete: 5},
		Status: engine.Status{Role: appmodules.Prim, Status: appmodules.Ready,
			Notices: []appmodules.Notice{{Alarm: true, Code: "a"}, {Code: "b"}, {Code: "c"}},
			Volumes: []engine.VolumeStatus{{Target: "vda", Dirty: 4096, Hung: 2 * time.Second, Lag: 3 * time.Millisecond,
				Proven: time.Unix(1000, 0),
				Stats:  blockrepl.Stats{WrittenBytes: 512, Flushes: 2, WriteNanos: 5e9}}}}}
}

// says fails unless a text has those lines and none of the others.
func says(t *testing.T, text string, lines, not []string) {
	t.Helper()
	have := strings.Split(text, "\n")
	for _, want := range lines {
		if !slices.Contains(have, want) {
			t.Errorf("no line %q", want)
		}
	}
	for _, bad := range not {
		if strings.Contains(text, bad) {
			t.Errorf("it tells of %q", bad)
		}
	}
}

// TestFigures: everything that is known becomes a figure, over HTTP and as a text.
func TestFigures(t *testing.T) {
	h := &house{states: []engine.State{web()}, guard: new(true),
		versions: []api.Version{{ID: "v1", Module: "web01", Target: "vda", Saved: 8192}}}
	x := h.exporter()
	srv := httptest.NewServer(x.Handler())
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{
		`duet_node_alive{node="alpha"} 1`, `duet_node_alive{node="beta"} 1`,
		`duet_heartbeat_path_alive{network="hb1",node="beta"} 1`, `duet_heartbeat_path_alive{network="hb2",node="beta"} 0`,
		`duet_witness_alive{witness="w1:7430"} 1`, `duet_witness_alive{witness="w2:7430"} 0`, `duet_guard_alive 1`,
		`duet_volume_diverged_saved_bytes{module="web01",version="v1",volume="vda"} 8192`,
		`duet_module_state{module="web01",role="PRIM",status="Ready"} 1`, `duet_module_epoch{module="web01"} 5`,
		`duet_module_holder{module="web01"} 1`, `duet_module_complete{module="web01"} 1`,
		`duet_module_notices{level="alarm",module="web01"} 1`, `duet_module_notices{level="warning",module="web01"} 2`,
		`duet_volume_dirty_bytes{module="web01",volume="vda"} 4096`,
		`duet_volume_disk_waits_seconds{module="web01",volume="vda"} 2`,
		`duet_volume_replication_lag_seconds{module="web01",volume="vda"} 0.003`,
		`duet_volume_proven_timestamp_seconds{module="web01",volume="vda"} 1000`,
		`duet_volume_written_bytes_total{module="web01",volume="vda"} 512`,
		`duet_volume_write_seconds_sum{module="web01",volume="vda"} 5`,
		`duet_transitions_total{module="web01"} 0`, `duet_failovers_total{module="web01"} 0`,
	}
	says(t, string(body), append(lines, "# TYPE go_goroutines gauge"), []string{"duet_failover_seconds{"})
	says(t, string(x.Text(t.Context())), lines, nil)
}

// TestWhatIsNotThere: what a node does not have is no figure, and what it cannot read hides nothing else.
func TestWhatIsNotThere(t *testing.T) {
	st := web()
	st.Record.Holder, st.Status.Notices, st.Status.Volumes[0].Proven = "beta", nil, time.Time{}
	h := &house{states: []engine.State{st}, broken: errors.New("it cannot be read")}
	x := h.exporter()
	says(t, string(x.Text(t.Context())), []string{`duet_module_holder{module="web01"} 0`,
		`duet_module_notices{level="alarm",module="web01"} 0`},
		[]string{"duet_guard_alive", "diverged_saved_bytes", "volume_proven"})
}

// TestFailovers: how long a takeover took counts from the loss of the primary to the running guest.
func TestFailovers(t *testing.T) {
	h := &house{states: []engine.State{web()}}
	x := h.exporter()
	at := time.Unix(1000, 0)
	count := func(on, to string, after time.Duration) {
		at = at.Add(after)
		x.Count(engine.Transition{Time: at, Module: "web01", On: on, To: to})
	}
	up, lost := appmodules.Up.String(), appmodules.FollowLost.String()
	count(up, "PRIM/Ready", 0) // a start is none
	count(lost, "SECOND/Transient", time.Second)
	count(appmodules.Followed.String(), "SECOND/Ready", time.Second) // it is back
	count(up, "PRIM/Ready", time.Second)
	count(lost, "SECOND/Transient", time.Second)
	count("stop", "STOP/NotReady", time.Second) // an admin ends it
	count(up, "PRIM/Ready", time.Second)
	says(t, string(x.Text(t.Context())), []string{`duet_failovers_total{module="web01"} 0`,
		`duet_transitions_total{module="web01"} 7`}, []string{"duet_failover_seconds{"})
	count(lost, "SECOND/Transient", time.Second)
	count("granted", "ALONE/Transient", time.Second)
	count(up, "ALONE/Ready", time.Second)
	says(t, string(x.Text(t.Context())), []string{`duet_failovers_total{module="web01"} 1`,
		`duet_failover_seconds{module="web01"} 2`}, nil)
	count(lost, "SECOND/Transient", time.Second) // a planned swap is told from that
	count(appmodules.TakeOver.String(), "ALONE/Transient", time.Second)
	count(up, "PRIM/Ready", time.Second)
	says(t, string(x.Text(t.Context())), []string{`duet_failovers_total{module="web01"} 1`,
		`duet_handovers_total{module="web01"} 1`, `duet_failover_seconds{module="web01"} 2`}, nil)
	x.Forget("web01")
	says(t, string(x.Text(t.Context())), []string{`duet_failovers_total{module="web01"} 0`,
		`duet_transitions_total{module="web01"} 0`}, nil)
}

// TestHistogram: the buckets end at powers of two microseconds, and the last one is open.
func TestHistogram(t *testing.T) {
	st := web()
	st.Status.Volumes[0].Stats.WriteLatency[0] = 1
	st.Status.Volumes[0].Stats.WriteLatency[2] = 2
	st.Status.Volumes[0].Stats.WriteLatency[len(st.Status.Volumes[0].Stats.WriteLatency)-1] = 4
	x := (&house{states: []engine.State{st}}).exporter()
	says(t, string(x.Text(t.Context())), []string{
		`duet_volume_write_seconds_bucket{module="web01",volume="vda",le="1e-06"} 1`,
		`duet_volume_write_seconds_bucket{module="web01",volume="vda",le="2e-06"} 1`,
		`duet_volume_write_seconds_bucket{module="web01",volume="vda",le="4e-06"} 3`,
		`duet_volume_write_seconds_bucket{module="web01",volume="vda",le="+Inf"} 7`,
		`duet_volume_write_seconds_count{module="web01",volume="vda"} 7`}, nil)
}
