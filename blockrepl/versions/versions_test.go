package versions

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/divergence"
	"duet/cluster"
	"duet/console/api"
	"duet/console/tasks"
)

const size = 4 * blockrepl.RegionSize

// memory is an image without a file.
type memory struct{ *backing.Faulty }

func (memory) Close() error { return nil }

// office is two nodes with a version on alpha.
type office struct {
	alpha, beta *Archive
	id          string // of the version
	image       *divergence.Image
	disk        memory
	was         []byte
	away        bool // alpha does not answer beta
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{}
	o.alpha, o.beta = o.node(t, "alpha"), o.node(t, "beta")
	o.disk = memory{backing.NewFaulty(backing.NewMemory(size))}
	image, err := o.alpha.cfg.Keeper.Open("vol", o.disk)
	if err != nil {
		t.Fatal(err)
	}
	o.image = image
	o.was = bytes.Repeat([]byte{7}, size)
	if _, err := image.WriteAt(o.was, 0); err != nil {
		t.Fatal(err)
	}
	lost := blockrepl.Lineage{Volume: "vol"}.With(blockrepl.Generation{Epoch: 3, Holder: "alpha"})
	v, err := image.Save(divergence.About{Volume: "vol", Module: "web01", Target: "vda", Node: "alpha", Epoch: 7,
		Size: size, Loser: divergence.Side{Node: "alpha", Lineage: lost, LastWrite: time.Unix(1000, 0)}})
	if err != nil {
		t.Fatal(err)
	}
	o.id = v.About().ID
	if _, err := image.WriteAt(bytes.Repeat([]byte{9}, blockrepl.RegionSize), 0); err != nil {
		t.Fatal(err)
	}
	return o
}

// node is the archive of one, which reaches alpha's.
func (o *office) node(t *testing.T, name cluster.NodeID) *Archive {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	keeper, err := divergence.NewKeeper(filepath.Join(t.TempDir(), "aside"), log)
	if err != nil {
		t.Fatal(err)
	}
	board := tasks.NewBoard()
	return New(Config{Self: name, Keeper: keeper, Logger: log, Call: o.call,
		Cluster: func() cluster.Config {
			return cluster.Config{Self: name, Members: []cluster.Member{{Node: "alpha"}, {Node: "beta"}}}
		},
		Run: func(kind, module string, work tasks.Work) (api.Task, error) {
			task, err := board.Begin(kind, module)
			if err != nil {
				return api.Task{}, err
			}
			said, err := work(t.Context(), task)
			task.End(said, err)
			return task.State(), err
		}})
}

// call is what nodes serve each other.
func (o *office) call(ctx context.Context, node cluster.NodeID, path string, out any) (err error) {
	room := o.alpha
	if node == "beta" {
		room = o.beta
	}
	switch {
	case o.away:
		return api.ErrUnreach
	case path == "versions":
		*out.(*[]api.Version), err = room.Here()
	case strings.HasSuffix(path, "/drop"):
		err = room.DropVersion(ctx, strings.TrimSuffix(strings.TrimPrefix(path, "versions/"), "/drop"))
	default:
		*out.(*api.Difference), err = room.Difference(ctx, strings.TrimPrefix(path, "versions/"))
	}
	return err
}

// TestAllNodesKnow: both nodes list a version, and compare it where it is kept.
func TestAllNodesKnow(t *testing.T) {
	o := newOffice(t)
	for _, at := range []*Archive{o.alpha, o.beta} {
		all, err := at.Diverged(t.Context())
		if err != nil || len(all) != 1 || all[0].ID != o.id || all[0].Node != "alpha" || all[0].Saved == 0 ||
			all[0].Loser.LastWrite == nil || all[0].Loser.FirstWrite != nil ||
			!all[0].Until.Equal(all[0].Begun.Add(divergence.Keep)) {
			t.Errorf("%s lists %+v, %v", at.cfg.Self, all, err)
		}
		d, err := at.Difference(t.Context(), o.id)
		if err != nil || d.Bytes != blockrepl.RegionSize || len(d.Ranges) == 0 || d.Partly {
			t.Errorf("%s finds %+v, %v", at.cfg.Self, d, err)
		}
		if _, err := at.Difference(t.Context(), "nobody"); !errors.Is(err, api.ErrNotFound) {
			t.Errorf("%s, a version that is none: %v", at.cfg.Self, err)
		}
	}
	o.away = true
	if all, err := o.beta.Diverged(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("a node that is away is not left out: %v, %v", all, err)
	}
}

// TestExport: a version is written as it was, on the node that keeps it, and not of a volume that is closed.
func TestExport(t *testing.T) {
	o := newOffice(t)
	path := filepath.Join(t.TempDir(), "was.raw")
	for what, c := range map[string]struct {
		at   *Archive
		path string
		want error
	}{"on another node": {o.beta, path, api.ErrConflict}, "not a whole path": {o.alpha, "was.raw", api.ErrInvalid}} {
		if _, err := c.at.ExportVersion(t.Context(), o.id, c.path); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	task, err := o.alpha.ExportVersion(t.Context(), o.id, path)
	if err != nil || !task.Done || !strings.Contains(task.Result, path) {
		t.Fatalf("export: %+v, %v", task, err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, o.was) {
		t.Errorf("%d bytes were written, %v: not what was there", len(got), err)
	}
	if err := o.image.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = o.alpha.ExportVersion(t.Context(), o.id, path)
	if !errors.Is(err, api.ErrConflict) || !strings.Contains(err.Error(), "`duet start web01`") {
		t.Errorf("of a closed volume: %v", err)
	}
	if _, err := o.alpha.Difference(t.Context(), o.id); !errors.Is(err, api.ErrConflict) {
		t.Errorf("the difference from a closed volume: %v", err)
	}
}

// TestDropAndTidy: a version goes where it is kept, or after its time.
func TestDropAndTidy(t *testing.T) {
	o := newOffice(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o.alpha.Tidy(ctx) // its time is not over
	if all, err := o.beta.Diverged(t.Context()); err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	if err := o.beta.DropVersion(t.Context(), o.id); err != nil {
		t.Fatal(err)
	}
	if all, err := o.alpha.Diverged(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("after the drop: %v, %v", all, err)
	}
	if err := o.alpha.DropVersion(t.Context(), o.id); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("a second drop: %v", err)
	}
}

// TestOfWhatIsGone: a version that cannot be read any more while its volume runs is told as what it is, with the
// remedy, and not as one of a closed volume.
func TestOfWhatIsGone(t *testing.T) {
	for what, spoil := range map[string]func(t *testing.T, o *office, dir string){
		"given up while the volume is written": func(t *testing.T, o *office, dir string) {
			// Nothing can be noted beside the old content, which cannot be read either.
			if err := os.Mkdir(filepath.Join(dir, "unreadable"), 0o700); err != nil {
				t.Fatal(err)
			}
			o.disk.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpRead}, Err: syscall.EIO})
			if _, err := o.image.WriteAt(make([]byte, blockrepl.RegionSize), size/2); err != nil {
				t.Fatal(err)
			}
		},
		"damaged": func(t *testing.T, _ *office, dir string) {
			if err := os.Truncate(filepath.Join(dir, "data"), 512); err != nil {
				t.Fatal(err)
			}
		},
		"damaged when its volume was opened": func(t *testing.T, o *office, dir string) {
			if err := o.image.Close(); err != nil {
				t.Fatal(err)
			}
			m, err := os.OpenFile(filepath.Join(dir, "map"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if _, err := m.WriteAt([]byte("nothing"), 0); err != nil {
				t.Fatal(err)
			}
			if _, err := o.alpha.cfg.Keeper.Open("vol", o.disk); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			o := newOffice(t)
			e, ok, err := o.alpha.cfg.Keeper.Find(o.id)
			if !ok || err != nil {
				t.Fatal(ok, err)
			}
			spoil(t, o, e.Dir)
			_, differs := o.alpha.Difference(t.Context(), o.id)
			_, export := o.alpha.ExportVersion(t.Context(), o.id, filepath.Join(t.TempDir(), "was.raw"))
			for _, err := range []error{differs, export} {
				if !errors.Is(err, api.ErrConflict) || strings.Contains(err.Error(), "duet start") ||
					!strings.Contains(err.Error(), "`duet volume drop "+o.id+"`") {
					t.Errorf("%v", err)
				}
			}
			if all, err := o.alpha.Here(); err != nil || len(all) != 1 || all[0].Saved != 0 {
				t.Errorf("listed as %+v, %v", all, err)
			}
		})
	}
}
