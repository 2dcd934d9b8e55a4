package clustertest

import (
	"bytes"
	"testing"

	"duet/cluster"
)

// StateLaws checks that Merge is commutative, associative and idempotent, that
// equal states encode to equal bytes, and that damaged input leaves a state as
// it was. fresh(i) returns a new state that holds the i-th of n different pieces
// of knowledge; the same i gives equal states.
func StateLaws(t *testing.T, n int, fresh func(i int) cluster.State) {
	t.Helper()
	for i := range n {
		if a, b := encode(t, fresh(i)), encode(t, fresh(i)); !bytes.Equal(a, b) {
			t.Errorf("state %d encodes to %x and %x", i, a, b)
		}
		damaged(t, fresh(i))
		for j := range n {
			ij := merged(t, fresh(i), fresh(j))
			if ji := merged(t, fresh(j), fresh(i)); !bytes.Equal(ij, ji) {
				t.Errorf("not commutative: %d+%d is %x, %d+%d is %x", i, j, ij, j, i, ji)
			}
			twice := fresh(i)
			merged(t, twice, fresh(j))
			if again := merged(t, twice, fresh(j)); !bytes.Equal(ij, again) {
				t.Errorf("not idempotent: %d+%d+%d", i, j, j)
			}
			for k := range n {
				left := fresh(i)
				merged(t, left, fresh(j))
				right := fresh(j)
				merged(t, right, fresh(k))
				if !bytes.Equal(merged(t, left, fresh(k)), merged(t, fresh(i), right)) {
					t.Errorf("not associative: %d, %d, %d", i, j, k)
				}
			}
		}
	}
}

func encode(t *testing.T, s cluster.State) []byte {
	t.Helper()
	b, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// merged merges b into a and returns what a has become.
func merged(t *testing.T, a, b cluster.State) []byte {
	t.Helper()
	if err := a.Merge(encode(t, b)); err != nil {
		t.Fatal(err)
	}
	return encode(t, a)
}

// damaged feeds s with parts of its own encoding.
func damaged(t *testing.T, s cluster.State) {
	t.Helper()
	whole := encode(t, s)
	for i := range whole {
		if err := s.Merge(bytes.Clone(whole[:i])); err != nil && !bytes.Equal(encode(t, s), whole) {
			t.Errorf("a refused input of %d bytes changed the state", i)
		}
	}
}
