// Package tasks is the board of a node's long works, running and recent, for whoever follows them.
//
// It only tells: a task's work is its caller's, and what has to survive the daemon is a plan of appmodules/protect.
// All of it is in memory, and a restart forgets it but for what Again lists. It has no goroutines and never waits.
package tasks

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/cluster"
	"duet/console/api"
)

// Board keeps tasks. Its methods may be called by several goroutines. Its lock is that of all its tasks.
type Board struct {
	mu    sync.Mutex
	tasks map[string]*Task // by ID
}

// keepTasks is how long an ended task can be asked for. It is dropped by the Begin that comes after.
const keepTasks = time.Hour

// Task is one long work. Any goroutine may change it; whoever began it ends it, once.
type Task struct {
	board *Board
	state api.Task // under board.mu
}

// NewBoard returns an empty one.
func NewBoard() *Board { return &Board{tasks: make(map[string]*Task)} }

// Work is what a task does. It returns its result in a sentence. ctx ends with the daemon, not with the request
// that began it.
type Work func(ctx context.Context, t *Task) (string, error)

// Begin lists a new task; a module has one at a time. The caller runs it. Another one of the module that has not
// ended is ErrConflict. The ID is random, of ten small letters and digits: it is part of keys and paths, as that of
// an images.Hosting.
func (b *Board) Begin(kind, module string) (*Task, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.tasks, func(_ string, t *Task) bool {
		return t.state.Done &&
			time.Since(*t.state.Ended) > keepTasks
	})
	for _, t := range b.tasks {
		if t.state.Module == module && !t.state.Done {
			return nil, fmt.Errorf("%w: %s of %s is going on as task %s", api.ErrConflict, t.state.Kind, module, t.state.ID)
		}
	}
	t := &Task{board: b, state: api.Task{ID: strings.ToLower(rand.Text()[:10]), Kind: kind, Module: module, Step: "begins",
		Began: time.Now()}}
	b.tasks[t.state.ID] = t
	return t, nil
}

// Again lists a task of an earlier run of the daemon, so that whoever follows it learns how it ends. It keeps its
// ID, and is listed whatever else the module has going on.
func (b *Board) Again(id, kind, module string) *Task {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := &Task{board: b, state: api.Task{ID: id, Kind: kind, Module: module,
		Step: "takes up what the end of the daemon cut short", Began: time.Now()}}
	b.tasks[id] = t
	return t
}

// Step says what the task does now. What was copied in the step before is not shown any more.
func (t *Task) Step(format string, args ...any) {
	t.board.mu.Lock()
	defer t.board.mu.Unlock()
	t.state.Step, t.state.Sync = fmt.Sprintf(format, args...), nil
}

// Copied says how many bytes of how many were copied since began; kind is that of api.Sync.
func (t *Task) Copied(kind string, done, total int64, began time.Time) {
	s := rate(kind, done, total, time.Since(began))
	t.board.mu.Lock()
	defer t.board.mu.Unlock()
	t.state.Sync = &s
}

// End says how it ended.
func (t *Task) End(result string, err error) {
	t.board.mu.Lock()
	defer t.board.mu.Unlock()
	now := time.Now()
	t.state.Done, t.state.Ended, t.state.Result = true, &now, result
	if err != nil {
		t.state.Error = cluster.Plain(err)
	}
}

// State is how it stands.
func (t *Task) State() api.Task {
	t.board.mu.Lock()
	defer t.board.mu.Unlock()
	return t.state
}

// Of returns the running task of a module, nil if there is none. It is a copy.
func (b *Board) Of(module string) *api.Task {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.tasks {
		if t.state.Module == module && !t.state.Done {
			s := t.state
			return &s
		}
	}
	return nil
}

// Protects: the work that protects a module goes on.
func (b *Board) Protects(module string) bool {
	return b.Of(module).Joins()
}

// Find returns a task by its ID. ErrNotFound lists the IDs that there are.
func (b *Board) Find(id string) (api.Task, error) {
	all := b.List()
	ids := make([]string, len(all))
	for i, t := range all {
		if t.ID == id {
			return t, nil
		}
		ids[i] = t.ID
	}
	known := "there are none"
	if len(ids) > 0 {
		known = "there are " + strings.Join(ids, ", ")
	}
	return api.Task{}, fmt.Errorf("task %s: %w on this node: %s; a task is of the node that was asked for the work, and "+
		"that forgets it an hour after its end", id, api.ErrNotFound, known)
}

// List returns all, the oldest first.
func (b *Board) List() []api.Task {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]api.Task, 0, len(b.tasks))
	for _, t := range b.tasks {
		out = append(out, t.state)
	}
	slices.SortFunc(out, func(a, b api.Task) int { return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.ID, b.ID)) })
	return out
}

// GoingOn are those of List that have not ended.
func (b *Board) GoingOn() []api.Task {
	return slices.DeleteFunc(b.List(), func(t api.Task) bool { return t.Done })
}

// rate is the progress of a copy by its mean speed so far. ETA is -1 until something was copied.
func rate(kind string, done, total int64, took time.Duration) api.Sync {
	s := api.Sync{Kind: kind, Total: total, Compared: done, Moved: done, ETA: -1}
	if seconds := took.Seconds(); seconds > 0 && done > 0 {
		s.Rate = int64(float64(done) / seconds)
		s.ETA = float64(total-done) / (float64(done) / seconds)
	}
	return s
}
