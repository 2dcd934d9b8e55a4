package node

import (
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"duet/appmodules"
	"duet/appmodules/engine"
)

// metricsHandler serves the node's figures. They are read when asked for.
func (n *Node) metricsHandler() http.Handler {
	n.cfg.Metrics.MustRegister(&exporter{n: n}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(n.cfg.Metrics, promhttp.HandlerOpts{})
}

// exporter turns the present state into metrics.
type exporter struct{ n *Node }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("duet_"+name, help, labels, nil)
}

// The metrics. Labels module and volume are names of the configuration.
var (
	nodeAlive     = desc("node_alive", "1 if any heartbeat path to the node answers.", "node")
	pathAlive     = desc("heartbeat_path_alive", "1 if the node answers on the heartbeat network.", "node", "network")
	moduleState   = desc("module_state", "1 for the role and status the module has on this node.", "module", "role", "status")
	moduleEpoch   = desc("module_epoch", "Newest epoch this node knows.", "module")
	moduleHolds   = desc("module_holder", "1 if this node holds the newest epoch it knows.", "module")
	moduleDone    = desc("module_complete", "1 if the data here hold every acknowledged write of that epoch.", "module")
	moduleNotices = desc("module_notices", "Things to mend that status shows, by level: an alarm says that what the guest wrote is not on both nodes.", "module", "level")
	witnessAlive  = desc("witness_alive", "1 if the witness answered this node's last question.", "witness")
	guardAlive    = desc("guard_alive", "1 if the guard, which pauses the guests here when duetd dies, answers.")
	versionBytes  = desc("volume_diverged_saved_bytes", "Size of a version that lost a split brain and is kept here: alert on its presence.", "module", "volume", "version")
	failovers     = desc("failovers_total", "Times this node took the module over.", "module")
	failoverTime  = desc("failover_seconds", "Seconds from the loss of the primary to the running VM, last time.", "module")
	transitions   = desc("transitions_total", "Changes of the module's state on this node.", "module")
	volumeDirty   = desc("volume_dirty_bytes", "Bytes that may differ from the peer's copy.", "module", "volume")
	volumeBad     = desc("volume_unreadable_bytes", "Bytes that cannot be read on this node: alert when it is not 0.", "module", "volume")
	volumeHung    = desc("volume_disk_waits_seconds", "For how long the disk here has not answered while an image is opened or closed.", "module", "volume")
	volumeLeft    = desc("volume_resync_left_bytes", "Bytes a running resync has still to compare.", "module", "volume")
	volumeMoved   = desc("volume_resync_moved_bytes", "Bytes the present or last resync sent.", "module", "volume")
	volumeRate    = desc("volume_resync_bytes_per_second", "Speed of a running resync.", "module", "volume")
	volumeLag     = desc("volume_replication_lag_seconds", "Age of the oldest request the peer has not answered.", "module", "volume")
	volumeProven  = desc("volume_proven_timestamp_seconds", "When the oldest part was last found the same on both nodes.", "module", "volume")
	volumeWritten = desc("volume_written_bytes_total", "Bytes written by the guest.", "module", "volume")
	volumeRead    = desc("volume_read_bytes_total", "Bytes read by the guest.", "module", "volume")
	volumeFlushes = desc("volume_flushes_total", "Flushes of the guest.", "module", "volume")
	volumeRepairs = desc("volume_read_repairs_total", "Failed local reads that the peer served.", "module", "volume")
	writeLatency  = desc("volume_write_seconds", "Time from a guest's write to its acknowledgement.", "module", "volume")
	readLatency   = desc("volume_read_seconds", "Time from a guest's read to its answer.", "module", "volume")
)

// Describe sends nothing: which metrics there are depends on the modules.
func (x *exporter) Describe(chan<- *prometheus.Desc) {}

// Collect reads the state of everything once.
func (x *exporter) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	view, c := x.n.gossip.View(), x.n.cluster()
	for _, m := range c.Members {
		gauge(nodeAlive, yes(m.Node == c.Self || view.Alive(m.Node)), string(m.Node))
		for network, ok := range view.Peers[m.Node].Paths {
			gauge(pathAlive, yes(ok), string(m.Node), network)
		}
	}
	for _, h := range x.n.voting.All() {
		_, silent := h.Silent()
		gauge(witnessAlive, yes(silent == nil), h.Name())
	}
	if x.n.sentry != nil {
		gauge(guardAlive, yes(x.n.sentry.answers()))
	}
	if kept, err := x.n.versions(); err == nil {
		for _, v := range kept {
			gauge(versionBytes, float64(v.Saved), v.Module, v.Target, v.ID)
		}
	}
	for _, m := range x.n.mirrors() {
		name, st := m.cfg.Name, m.engine.State()
		gauge(moduleState, 1, name, st.Status.Role.String(), st.Status.Status.String())
		gauge(moduleEpoch, float64(st.Record.Epoch), name)
		gauge(moduleHolds, yes(st.Record.Holds(x.n.self())), name)
		gauge(moduleDone, yes(st.Record.IsComplete()), name)
		counts := map[string]int{"alarm": 0, "warning": 0}
		for _, x := range nodeState("", name, st.Status).Notices {
			counts[x.Level]++
		}
		for level, count := range counts {
			gauge(moduleNotices, float64(count), name, level)
		}
		m.meter.collect(out, name)
		for _, v := range st.Status.Volumes {
			collectVolume(out, name, v)
		}
	}
}

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
	send(volumeLag, prometheus.GaugeValue, v.Lag.Seconds())
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

// histogram turns the volume's buckets, which end at 2^i µs, into one of Prometheus.
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

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// meter counts what a module's transitions tell: changes and takeovers.
type meter struct {
	mu       sync.Mutex
	changes  int
	took     int
	lost     time.Time // since when the primary is missed; zero: it is not
	duration time.Duration
}

// add takes one transition.
func (m *meter) add(t engine.Transition) {
	if t.On == engine.OnProof {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	switch {
	case t.On == appmodules.FollowLost.String():
		m.lost = t.Time
	case t.On == appmodules.Followed.String() || t.To == "STOP/NotReady":
		m.lost = time.Time{}
	case t.On == appmodules.Up.String() && !m.lost.IsZero():
		m.took++
		m.duration, m.lost = t.Time.Sub(m.lost), time.Time{}
	}
}

func (m *meter) collect(out chan<- prometheus.Metric, module string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out <- prometheus.MustNewConstMetric(transitions, prometheus.CounterValue, float64(m.changes), module)
	out <- prometheus.MustNewConstMetric(failovers, prometheus.CounterValue, float64(m.took), module)
	if m.took > 0 {
		out <- prometheus.MustNewConstMetric(failoverTime, prometheus.GaugeValue, m.duration.Seconds(), module)
	}
}
