// Package metrics turns a node's state into figures for Prometheus. They are read when they are asked for; only what
// transitions tell is counted as it happens.
//
// Nothing is kept on a disk, so counters begin with the daemon. A scrape reads what is in memory and the store of
// versions; it asks no other node, so that a peer that is away does not end the figures of the one that lives.
// metrics.go reads, descriptions.go names: a new figure is a desc there and a line in Collect.
package metrics

import (
	"bytes"
	"context"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/cluster"
	"duet/console/api"
)

// Witness is one as this node reaches it.
type Witness struct {
	Name  string
	Alive bool // it answered the last question
}

// Config says where an Exporter reads; all functions are needed and none may wait for another node. They are called
// by the goroutine of a scrape, several at once if there are several.
type Config struct {
	Cluster   func() cluster.Config
	View      func() cluster.View
	Witnesses func() []Witness
	Guard     func() *bool // whether the guard answers; nil: there is none
	Versions  func() ([]api.Version, error)
	Modules   func() []engine.State // of this node
}

// Exporter has the figures of a node. Any goroutine may call its methods. mu is held for moments, never while one
// of Config's functions runs.
type Exporter struct {
	cfg Config
	all *prometheus.Registry // this exporter and those of the process

	mu     sync.Mutex
	meters map[string]*meter // by module
}

// New returns an Exporter; it reads nothing yet.
func New(cfg Config) *Exporter {
	x := &Exporter{cfg: cfg, all: prometheus.NewRegistry(), meters: make(map[string]*meter)}
	x.all.MustRegister(x, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return x
}

// Handler serves the node's figures and those of its process. An error while collecting is the answer 500.
func (x *Exporter) Handler() http.Handler { return promhttp.HandlerFor(x.all, promhttp.HandlerOpts{}) }

// Text is what the handler answers. That may be an error in words.
func (x *Exporter) Text(ctx context.Context) []byte {
	var w page
	x.Handler().ServeHTTP(&w, (&http.Request{Header: http.Header{}}).WithContext(ctx))
	return w.Bytes()
}

// page is an http.ResponseWriter in memory.
type page struct {
	bytes.Buffer
	header http.Header
}

// Header is for the handler.
func (p *page) Header() http.Header {
	if p.header == nil {
		p.header = http.Header{}
	}
	return p.header
}

// WriteHeader has nobody to tell.
func (p *page) WriteHeader(int) {}

// Count takes one transition of a module on this node. It never waits for a disk, as the engine's goroutine calls
// it.
func (x *Exporter) Count(t engine.Transition) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.meters[t.Module]
	if m == nil {
		m = &meter{}
		x.meters[t.Module] = m
	}
	m.add(t)
}

// Forget drops what was counted of a module: its name may be used again. A transition that comes after begins anew.
func (x *Exporter) Forget(module string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.meters, module)
}

// meter is what was counted of a module. It is a copy; one without a transition so far is all zeroes.
func (x *Exporter) meter(module string) meter {
	x.mu.Lock()
	defer x.mu.Unlock()
	if m := x.meters[module]; m != nil {
		return *m
	}
	return meter{}
}

// Describe sends nothing: which metrics there are depends on the modules. The registry takes it as unchecked then,
// and a figure that is sent twice shows at the scrape only.
func (x *Exporter) Describe(chan<- *prometheus.Desc) {}

// Collect reads the state of everything once. They are not all of one moment.
func (x *Exporter) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	view, c := x.cfg.View(), x.cfg.Cluster()
	for _, m := range c.Members {
		// This node is alive, whatever its view says of itself.
		gauge(nodeAlive, yes(m.Node == c.Self || view.Alive(m.Node)), string(m.Node))
		for network, ok := range view.Peers[m.Node].Paths {
			gauge(pathAlive, yes(ok), string(m.Node), network)
		}
	}
	for _, w := range x.cfg.Witnesses() {
		gauge(witnessAlive, yes(w.Alive), w.Name)
	}
	if answers := x.cfg.Guard(); answers != nil {
		gauge(guardAlive, yes(*answers))
	}
	if kept, err := x.cfg.Versions(); err == nil { // else the store of versions is broken, and status says so
		for _, v := range kept {
			gauge(versionBytes, float64(v.Saved), v.Module, v.Target, v.ID)
		}
	}
	for _, st := range x.cfg.Modules() {
		name := st.Module
		gauge(moduleState, 1, name, st.Status.Role.String(), st.Status.Status.String())
		gauge(moduleEpoch, float64(st.Record.Epoch), name)
		gauge(moduleHolds, yes(st.Record.Holds(c.Self)), name)
		gauge(moduleDone, yes(st.Record.IsComplete()), name)
		counts := map[string]int{"alarm": 0, "warning": 0} // both are there always, so that rules have no gaps
		for _, n := range st.Status.Notices {
			counts[map[bool]string{true: "alarm", false: "warning"}[n.Alarm]]++
		}
		for level, count := range counts {
			gauge(moduleNotices, float64(count), name, level)
		}
		gauge(moduleProtected, yes(protected(st)), name)
		m := x.meter(name)
		m.collect(out, name)
		for _, v := range st.Status.Volumes {
			collectVolume(out, name, v)
		}
	}
}

// protected: it runs here, and every volume has a peer in step.
func protected(st engine.State) bool {
	if st.Status.Role != appmodules.Prim || st.Status.Status != appmodules.Ready {
		return false
	}
	return !slices.ContainsFunc(st.Status.Volumes, func(v engine.VolumeStatus) bool {
		return v.State != blockrepl.Connected.String()
	})
}

// collectVolume sends what is known of a volume. A time that is not known is no figure: 0 would be 1970.
func collectVolume(out chan<- prometheus.Metric, name string, v engine.VolumeStatus) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, value float64) {
		out <- prometheus.MustNewConstMetric(d, t, value, name, v.Target)
	}
	send(volumeDirty, prometheus.GaugeValue, float64(v.Dirty))
	send(volumeBad, prometheus.GaugeValue, float64(v.Unreadable))
	send(volumeHung, prometheus.GaugeValue, v.Hung.Seconds())
	send(volumeLeft, prometheus.GaugeValue, float64(v.ToCompare))
	send(volumeMoved, prometheus.GaugeValue, float64(v.Moved))
	send(volumeRate, prometheus.GaugeValue, v.Rate)
	send(volumeLag, prometheus.GaugeValue, v.Lag.Seconds()) // 0 without a peer
	if !v.Proven.IsZero() {
		send(volumeProven, prometheus.GaugeValue, float64(v.Proven.Unix()))
	}
	collectProof(send, v.Proof)
	s := v.Stats
	send(volumeWritten, prometheus.CounterValue, float64(s.WrittenBytes))
	send(volumeRead, prometheus.CounterValue, float64(s.ReadBytes))
	send(volumeFlushes, prometheus.CounterValue, float64(s.Flushes))
	send(volumeRepairs, prometheus.CounterValue, float64(s.ReadRepairs))
	out <- histogram(writeLatency, s.WriteLatency[:], s.WriteNanos, name, v.Target)
	out <- histogram(readLatency, s.ReadLatency[:], s.ReadNanos, name, v.Target)
}

// histogram turns the volume's buckets, which end at 2^i µs, into one of Prometheus. counts are of each bucket
// alone, Prometheus wants sums up to its end; sum is in ns.
func histogram(d *prometheus.Desc, counts []int64, sum int64, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(counts))
	var total uint64
	for i, c := range counts {
		total += uint64(c)
		if i < len(counts)-1 { // the last one is open
			buckets[math.Ldexp(1, i)/1e6] = total
		}
	}
	return prometheus.MustNewConstHistogram(d, total, time.Duration(sum).Seconds(), buckets, labels...)
}

// yes is a truth as Prometheus has it.
func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// meter counts what a module's transitions tell: changes and takeovers. It is guarded by the exporter's mu.
type meter struct {
	changes  int           // transitions that are no finding of a proof
	took     int           // takeovers that came to a running guest, after the primary was missed
	given    int           // the same, after the peer handed it over
	handed   bool          // the peer handed it over, and it does not run yet
	lost     time.Time     // since when the primary is missed; zero: it is not
	duration time.Duration // of the last takeover
}

// add takes one transition. A proof's finding is in the same stream and changes nothing.
func (m *meter) add(t engine.Transition) {
	if t.On == engine.OnProof {
		return
	}
	m.changes++
	switch {
	// A takeover is what lies between the loss of the primary and the guest that runs here, whatever the phases
	// in between.
	case t.On == appmodules.FollowLost.String():
		m.lost = t.Time
	case t.On == appmodules.TakeOver.String():
		m.handed, m.lost = true, time.Time{}
	case t.On == appmodules.Followed.String() || t.To == "STOP/NotReady":
		m.handed, m.lost = false, time.Time{}
	// What the peer handed over was never missed.
	case t.On == appmodules.Up.String() && m.handed:
		m.given++
		m.handed, m.lost = false, time.Time{}
	case t.On == appmodules.Up.String() && !m.lost.IsZero():
		m.took++
		m.duration, m.lost = t.Time.Sub(m.lost), time.Time{}
	}
}

// collect sends what was counted. Without a takeover there is no duration of one.
func (m *meter) collect(out chan<- prometheus.Metric, module string) {
	out <- prometheus.MustNewConstMetric(transitions, prometheus.CounterValue, float64(m.changes), module)
	out <- prometheus.MustNewConstMetric(failovers, prometheus.CounterValue, float64(m.took), module)
	out <- prometheus.MustNewConstMetric(handovers, prometheus.CounterValue, float64(m.given), module)
	if m.took > 0 {
		out <- prometheus.MustNewConstMetric(failoverTime, prometheus.GaugeValue, m.duration.Seconds(), module)
	}
}

// collectProof sends the figures of a proof, of which only the node that leads has one.
func collectProof(send func(*prometheus.Desc, prometheus.ValueType, float64), p *engine.ProofStatus) {
	if p == nil {
		return
	}
	send(volumeProofAge, prometheus.GaugeValue, p.Ledger.Age(time.Now()).Seconds())
	send(volumeDiffers, prometheus.GaugeValue, float64(p.Ledger.Differs()))
}
