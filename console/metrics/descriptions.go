package metrics

import "github.com/prometheus/client_golang/prometheus"

// desc describes a metric: all have one prefix, so that a scrape can be told from others. Units are at the end of a
// name, and counters end with _total.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("duet_"+name, help, labels, nil)
}

// The metrics. Labels module and volume are names of the configuration.
var (
	nodeAlive = desc("node_alive", "1 if any heartbeat path to the node answers.", "node")
	pathAlive = desc("heartbeat_path_alive",
		"1 if the node answers on the heartbeat network.", "node", "network")
	// One series for each state that the module is in now: another state is another series.
	moduleState = desc("module_state",
		"1 for the role and status the module has on this node.", "module", "role", "status")
	moduleEpoch = desc("module_epoch", "Newest epoch this node knows.", "module")
	moduleHolds = desc("module_holder", "1 if this node holds the newest epoch it knows.", "module")
	moduleDone  = desc("module_complete",
		"1 if the data here hold every acknowledged write of that epoch.", "module")
	moduleNotices = desc("module_notices",
		"Things to mend that status shows, by level: an alarm says that what the guest wrote is not on both nodes.", "module",
		"level")
	witnessAlive = desc("witness_alive", "1 if the witness answered this node's last question.", "witness")
	guardAlive   = desc("guard_alive", "1 if the guard, which pauses the guests here when duetd dies, answers.")
	versionBytes = desc("volume_diverged_saved_bytes",
		"Size of a version that lost a split brain and is kept here: alert on its presence.", "module", "volume", "version")
	moduleProtected = desc("module_protected", "1 if both copies are complete and the module runs: it survives the "+
		"loss of either; 0 on the node that runs it if not, and on the other one always. Sum over the nodes.", "module")
	failovers = desc("failovers_total", "Times this node took the module over because it had lost the primary.", "module")
	handovers = desc("handovers_total", "Times the peer handed the module to this node: swaps, failbacks, and moves "+
		"of what failed there.", "module")
	failoverTime = desc("failover_seconds",
		"Seconds from the loss of the primary to the running VM, last time.", "module")
	transitions = desc("transitions_total", "Changes of the module's state on this node.", "module")
	volumeDirty = desc("volume_dirty_bytes", "Bytes that may differ from the peer's copy.", "module", "volume")
	volumeBad   = desc("volume_unreadable_bytes",
		"Bytes that cannot be read on this node: alert when it is not 0.", "module", "volume")
	volumeHung = desc("volume_disk_waits_seconds",
		"For how long the disk here has not answered while an image is opened or closed.", "module", "volume")
	volumeLeft = desc("volume_resync_left_bytes",
		"Bytes a running resync has still to compare.", "module", "volume")
	volumeMoved = desc("volume_resync_moved_bytes", "Bytes the present or last resync sent.", "module", "volume")
	volumeRate  = desc("volume_resync_bytes_per_second", "Speed of a running resync.", "module", "volume")
	volumeLag   = desc("volume_replication_lag_seconds",
		"Age of the oldest request the peer has not answered.", "module", "volume")
	volumeProven = desc("volume_proven_timestamp_seconds",
		"When the oldest part was last found the same on both nodes.", "module", "volume")
	volumeProofAge = desc("volume_proof_age_seconds",
		"Time since the oldest part of the volume was last found the same on both nodes; "+
			"a part that never was counts from when the copies became a pair.",
		"module", "volume")
	volumeDiffers = desc("volume_differs_bytes", "Bytes in which the copies are known to differ: alert when it is not 0.",
		"module", "volume")
	volumeWritten = desc("volume_written_bytes_total", "Bytes written by the guest.", "module", "volume")
	volumeRead    = desc("volume_read_bytes_total", "Bytes read by the guest.", "module", "volume")
	volumeFlushes = desc("volume_flushes_total", "Flushes of the guest.", "module", "volume")
	volumeRepairs = desc("volume_read_repairs_total",
		"Failed local reads that the peer served.", "module", "volume")
	writeLatency = desc("volume_write_seconds",
		"Time from a guest's write to its acknowledgement.", "module", "volume")
	readLatency = desc("volume_read_seconds", "Time from a guest's read to its answer.", "module", "volume")
)
