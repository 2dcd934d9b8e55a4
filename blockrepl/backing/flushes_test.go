package backing

import (
	"errors"
	"runtime"
	"testing"
)

// TestFlushesAtOnce: the kernel tells one flush of a lost page, and the next that all is well. The next is not
// believed, also where it began before the first had told.
func TestFlushesAtOnce(t *testing.T) {
	var f flushes
	lost, told := errors.New("input/output error"), make(chan struct{})
	began, came := make(chan struct{}), make(chan struct{})
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- f.do(func() error { close(began); <-told; return lost }) }()
	<-began
	go func() {
		close(came)
		second <- f.do(func() error { return nil })
	}()
	<-came
	for range 1000 { // the other goroutine gets as far as it can
		runtime.Gosched()
	}
	select {
	case err := <-second:
		t.Errorf("the second is over, %v, before the first has told", err)
		second <- err
	default:
	}
	close(told)
	if a, b := <-first, <-second; a != lost || b != lost {
		t.Errorf("the first says %v, the second %v", a, b)
	}
}

// TestFlushOfClosed: that a file is closed says nothing about its disk.
func TestFlushOfClosed(t *testing.T) {
	var f flushes
	if err := f.do(func() error { return ErrClosed }); err != ErrClosed {
		t.Error(err)
	}
	if err := f.do(func() error { return nil }); err != nil {
		t.Errorf("after one of a closed file: %v", err)
	}
}
