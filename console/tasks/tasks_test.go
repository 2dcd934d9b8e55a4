package tasks_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"duet/console/api"
	"duet/console/tasks"
)

// TestBoard: a module has one task at a time, and an ended one can be asked for an hour long.
func TestBoard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tasks.NewBoard()
		one, err := b.Begin("protect", "web01")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Begin("release", "web01"); !errors.Is(err, api.ErrConflict) {
			t.Errorf("a second task of the module: %v", err)
		}
		one.Step("copies disk %s", "vda")
		one.Copied("adopt", 25, 100, time.Now().Add(-time.Second))
		got := b.Of("web01")
		if got == nil || got.Step != "copies disk vda" || got.Sync == nil || got.Sync.Rate != 25 || got.Sync.ETA != 3 {
			t.Errorf("it is %+v", got)
		}
		one.End("", errors.New("the disk is full"))
		if b.Of("web01") != nil {
			t.Error("it still goes on")
		}
		id := one.State().ID
		if got, err := b.Find(id); err != nil || !got.Done || got.Error != "the disk is full" {
			t.Errorf("found %+v, %v", got, err)
		}
		time.Sleep(time.Hour + time.Second)
		if _, err := b.Begin("release", "web01"); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Find(id); !errors.Is(err, api.ErrNotFound) {
			t.Errorf("an hour later: %v", err)
		}
	})
}

// TestAgain: whoever follows a task of an earlier run finds it under its ID.
func TestAgain(t *testing.T) {
	b := tasks.NewBoard()
	b.Again("abc", "protect", "web01").End("it is protected", nil)
	if got, err := b.Find("abc"); err != nil || got.Result != "it is protected" {
		t.Errorf("found %+v, %v", got, err)
	}
	if got := b.List(); len(got) != 1 {
		t.Errorf("listed are %+v", got)
	}
}
