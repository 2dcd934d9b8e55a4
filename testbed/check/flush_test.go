package check

import "testing"

func TestSurvived(t *testing.T) {
	w := func(value uint64, call, ret int64) Op {
		return Op{Block: 7, Write: true, Value: value, Call: call, Return: ret}
	}
	lost := func(op Op) Op { op.Unknown = true; return op }
	fua := func(op Op) Op { op.FUA = true; return op }
	flush := func(call int64) []Flush { return []Flush{{Call: call, Return: call + 1}} }
	tests := []struct {
		name    string
		ops     []Op
		flushes []Flush
		found   uint64
		ok      bool
	}{
		{"never written", nil, nil, 0, true},
		{"a value from nowhere", nil, nil, 3, false},
		{"unflushed and there", []Op{w(1, 0, 1)}, nil, 1, true},
		{"unflushed and gone", []Op{w(1, 0, 1)}, nil, 0, true},
		{"flushed and there", []Op{w(1, 0, 1)}, flush(2), 1, true},
		{"flushed and gone", []Op{w(1, 0, 1)}, flush(2), 0, false},
		{"flush began before the write returned", []Op{w(1, 0, 3)}, flush(2), 0, true},
		{"FUA and gone", []Op{fua(w(1, 0, 1))}, nil, 0, false},
		{"FUA without an answer", []Op{lost(fua(w(1, 0, 1)))}, nil, 0, true},
		{"older than the flushed one", []Op{w(1, 0, 1), w(2, 2, 3)}, flush(4), 1, false},
		{"later than the flushed one", []Op{w(1, 0, 1), w(2, 4, 5)}, flush(2), 2, true},
		{"the unflushed one is gone", []Op{w(1, 0, 1), w(2, 4, 5)}, flush(2), 1, true},
		{"later without an answer", []Op{w(1, 0, 1), lost(w(2, 4, 5))}, flush(2), 2, true},
		{"never answered and begun before", []Op{lost(w(1, 0, 1)), w(2, 2, 3)}, flush(4), 1, true},
		{"both at the same time", []Op{w(1, 0, 4), w(2, 1, 3)}, flush(5), 1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Survived(tt.ops, tt.flushes, map[uint64]uint64{7: tt.found})
			if (got == nil) != tt.ok {
				t.Errorf("ok wanted: %v, got %v", tt.ok, got)
			}
		})
	}
}
