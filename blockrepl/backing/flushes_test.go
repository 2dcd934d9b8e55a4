package backing

import (
	"errors"
	"testing"
	"testing/synctest"
)

// TestFlushesAtOnce: the kernel tells one flush of a lost page, and the next that all is well. The next is not
// believed, also where it began before the first had told.
func TestFlushesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flushes
		lost, told := errors.New("input/output error"), make(chan struct{})
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- f.do(func() error { <-told; return lost }) }()
		synctest.Wait()
		go func() { second <- f.do(func() error { return nil }) }()
		synctest.Wait()
		select {
		case err := <-second:
			t.Errorf("the second is over, %v, before the first has told", err)
		default:
		}
		close(told)
		if a, b := <-first, <-second; a != lost || b != lost {
			t.Errorf("the first says %v, the second %v", a, b)
		}
	})
	var f flushes
	if err := f.do(func() error { return ErrClosed }); err != ErrClosed {
		t.Error(err)
	}
	if err := f.do(func() error { return nil }); err != nil {
		t.Errorf("after one of a closed file: %v", err)
	}
}
