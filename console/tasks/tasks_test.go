package tasks_test

import (
	"errors"
	"slices"
	"strings"
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
		if !b.Protects("web01") || b.Protects("web02") {
			t.Error("it is being protected, and no other one")
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
		if b.Of("web01") != nil || b.Protects("web01") {
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

// TestList: tasks are listed the oldest first, those that go on also alone, and an ID that is none is told those that
// there are, in words.
func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tasks.NewBoard()
		if _, err := b.Find("abc"); !errors.Is(err, api.ErrNotFound) || !strings.Contains(err.Error(), "there are none") {
			t.Errorf("in an empty board: %v", err)
		}
		var ids []string
		for _, module := range []string{"web01", "db", "old"} {
			time.Sleep(time.Second)
			one, err := b.Begin("protect", module)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, one.State().ID)
			if module == "db" {
				one.End("it is protected", nil)
			}
		}
		var listed, going []string
		for _, x := range b.List() {
			listed = append(listed, x.ID)
		}
		for _, x := range b.GoingOn() {
			going = append(going, x.Module)
		}
		if !slices.Equal(listed, ids) || !slices.Equal(going, []string{"web01", "old"}) {
			t.Errorf("of %q listed are %q, and %q go on", ids, listed, going)
		}
		if _, err := b.Find("abc"); !errors.Is(err, api.ErrNotFound) ||
			!strings.Contains(err.Error(), "there are "+strings.Join(ids, ", ")) {
			t.Errorf("a wrong ID: %v", err)
		}
	})
}
