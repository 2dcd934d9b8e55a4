package blockrepl

import "time"

// The bounds of resync speed, in bytes per second. The floor makes it always end;
// a compared byte counts as 1/compareDiscount of a moved one.
const (
	rateFloor       = 16 << 20
	rateStart       = 256 << 20
	rateCeiling     = 8 << 30
	compareDiscount = 4
	judgeEvery      = 100 * time.Millisecond
)

// throttle finds the speed of a resync that the guest does not feel. It is pure: the
// pacer feeds it what guests saw since the last call.
type throttle struct {
	rate float64       // bytes per second
	calm time.Duration // latency of the guest's writes when little disturbs them; 0: none seen yet
}

func newThrottle() throttle { return throttle{rate: rateStart} }

// judge adapts the rate to the mean latency of count guest writes. The calm latency
// follows the lowest one seen and forgets slowly, as disks and loads change. It is called every judgeEvery at most, so
// the rate falls from any height to the floor within seconds.
func (t *throttle) judge(mean time.Duration, count int64) {
	if count == 0 {
		t.rate = min(t.rate*2, rateCeiling)
		return
	}
	t.calm += t.calm / 64
	if t.calm == 0 || mean < t.calm {
		t.calm = mean
	}
	if mean > 2*t.calm+time.Millisecond {
		t.rate = max(t.rate*0.7, rateFloor)
		return
	}
	t.rate = min(t.rate*1.25, rateCeiling)
}

// latencyMeter sums the latency of guest writes between two looks at it.
type latencyMeter struct {
	sum   int64 // ns
	count int64
}

func (m *latencyMeter) add(op Op, ns int64) {
	if op != OpRead {
		m.sum += ns
		m.count++
	}
}

// take returns the mean and number since the last call.
func (m *latencyMeter) take() (time.Duration, int64) {
	sum, count := m.sum, m.count
	*m = latencyMeter{}
	return time.Duration(sum / max(count, 1)), count
}
