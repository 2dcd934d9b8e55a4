package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/console/api"
)

// taskBoard keeps the long works of this node, running and recent.
type taskBoard struct {
	mu    sync.Mutex
	tasks map[string]*task
}

// keepTasks is how long an ended task can be asked for.
const keepTasks = time.Hour

// task is one long work; its own goroutine changes it.
type task struct {
	board *taskBoard
	state api.Task // under board.mu
}

func newTaskBoard() *taskBoard { return &taskBoard{tasks: make(map[string]*task)} }

// run begins a task; one module has one task at a time.
func (n *Node) run(kind, module string, work func(ctx context.Context, t *task) (string, error)) (api.Task, error) {
	t, err := n.tasks.add(kind, module)
	if err != nil {
		return api.Task{}, err
	}
	n.spawn(func(ctx context.Context) {
		result, err := work(ctx, t)
		if err != nil {
			n.log.Warn("task failed", "kind", kind, "module", module, "err", err)
		}
		t.end(result, err)
	})
	return t.snapshot(), nil
}

func (b *taskBoard) add(kind, module string) (*task, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.tasks, func(_ string, t *task) bool { return t.state.Done && time.Since(*t.state.Ended) > keepTasks })
	for _, t := range b.tasks {
		if t.state.Module == module && !t.state.Done {
			return nil, fmt.Errorf("%w: %s of %s is going on as task %s", api.ErrConflict, t.state.Kind, module, t.state.ID)
		}
	}
	t := &task{board: b, state: api.Task{ID: strings.ToLower(rand.Text()[:10]), Kind: kind, Module: module, Step: "begins", Began: time.Now()}}
	b.tasks[t.state.ID] = t
	return t, nil
}

// again lists a task of an earlier run of the daemon, so that whoever follows it learns how it ends.
func (b *taskBoard) again(id, kind, module string) *task {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := &task{board: b, state: api.Task{ID: id, Kind: kind, Module: module, Step: "takes up what the end of the daemon cut short", Began: time.Now()}}
	b.tasks[id] = t
	return t
}

// step says what the task does now.
func (t *task) step(format string, args ...any) {
	t.board.mu.Lock()
	defer t.board.mu.Unlock()
	t.state.Step, t.state.Sync = fmt.Sprintf(format, args...), nil
}

// progress says how far the step is.
func (t *task) progress(s api.Sync) {
	t.board.mu.Lock()
	defer t.board.mu.Unlock()
	t.state.Sync = &s
}

func (t *task) end(result string, err error) {
	t.board.mu.Lock()
	defer t.board.mu.Unlock()
	now := time.Now()
	t.state.Done, t.state.Ended, t.state.Result = true, &now, result
	if err != nil {
		t.state.Error = err.Error()
	}
}

func (t *task) snapshot() api.Task {
	t.board.mu.Lock()
	defer t.board.mu.Unlock()
	return t.state
}

// of returns the running task of a module, nil if there is none.
func (b *taskBoard) of(module string) *api.Task {
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

// Task returns a task by its id.
func (n *Node) Task(_ context.Context, id string) (api.Task, error) {
	n.tasks.mu.Lock()
	t := n.tasks.tasks[id]
	ids := slices.Sorted(maps.Keys(n.tasks.tasks))
	n.tasks.mu.Unlock()
	if t == nil {
		return api.Task{}, fmt.Errorf("%w: task %q on %s; known are %q", api.ErrNotFound, id, n.self(), ids)
	}
	return t.snapshot(), nil
}

// rate turns two figures of bytes and the time since start into a Sync.
func rate(kind string, done, total int64, began time.Time) api.Sync {
	s := api.Sync{Kind: kind, Total: total, Compared: done, Moved: done, ETA: -1}
	if took := time.Since(began).Seconds(); took > 0 && done > 0 {
		s.Rate = int64(float64(done) / took)
		s.ETA = float64(total-done) / (float64(done) / took)
	}
	return s
}
