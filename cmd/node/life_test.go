package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// TestLifeEndsInReverse: what was begun last ends first, errors name what did not end well, and the end is repeated.
func TestLifeEndsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l life
		l.begin()
		var ended []string
		end := func(name string, err error) {
			l.push(name, func(context.Context) error { ended = append(ended, name); return err })
		}
		end("store", errors.New("the disk is full"))
		l.spawn(func(ctx context.Context) {
			<-ctx.Done()
			ended = append(ended, "spawned")
		})
		l.outlive("guard", func(ctx context.Context) {
			<-ctx.Done()
			ended = append(ended, "guard")
		})
		end("services", nil)
		err := l.teardown(t.Context())
		if err == nil || !strings.Contains(err.Error(), "stop store: the disk is full") {
			t.Errorf("the end says %v", err)
		}
		if want := []string{"services", "guard", "store", "spawned"}; !slices.Equal(ended, want) {
			t.Errorf("it ended as %q, want %q", ended, want)
		}
		if err := l.teardown(t.Context()); err != nil || len(ended) != 4 {
			t.Errorf("repeated: %v, %q", err, ended)
		}
	})
}

// TestOutlive: what outlives the node's goroutines runs until Stop comes to it.
func TestOutlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l life
		l.begin()
		running := true
		l.outlive("watchdog", func(ctx context.Context) {
			<-ctx.Done()
			running = false
		})
		l.push("watchers", func(context.Context) error {
			l.cancel()
			synctest.Wait()
			if !running {
				t.Error("it ended with the goroutines")
			}
			return nil
		})
		if err := l.teardown(t.Context()); err != nil || running {
			t.Errorf("%v, running %v", err, running)
		}
	})
}

// TestCutVolume: a volume is named by its module and its disk.
func TestCutVolume(t *testing.T) {
	for text, want := range map[string]bool{"web01/vda": true, "web01": false, "/vda": false, "web01/": false} {
		module, target, ok := cutVolume(text)
		if ok != want || ok && module+"/"+target != text {
			t.Errorf("%q is read as %q, %q, %v", text, module, target, ok)
		}
	}
}
