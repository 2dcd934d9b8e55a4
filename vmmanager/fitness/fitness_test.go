package fitness

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/protect"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
	"duet/vmmanager/fake"
)

// judge is a hypervisor that says what a test wants of every VM.
type judge struct {
	*fake.Hypervisor
	mu    *sync.Mutex // of the place: a Watch reads what the test says
	found []vmmanager.Finding
	err   error
	asked int
	slow  bool                 // it goes on as long as it may
	on    []vmmanager.Endpoint // of every VM, where a test says so
}

func (j *judge) On(def vmmanager.Definition) []vmmanager.Endpoint {
	if j.on != nil {
		return j.on
	}
	return j.Hypervisor.On(def)
}

func (j *judge) Judge(ctx context.Context, _ vmmanager.Definition) ([]vmmanager.Finding, error) {
	j.mu.Lock()
	j.asked++
	found, err, slow := slices.Clone(j.found), j.err, j.slow
	j.mu.Unlock()
	if slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return found, err
}

// core is an engine whose VM is in a state.
type core struct {
	mu   *sync.Mutex // of the place
	word string
	text string // of its definition
	err  error
}

func (c *core) State() engine.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return engine.State{Digest: appmodules.Digest([]byte(c.text)),
		Status: engine.Status{Workload: c.word, Holder: "alpha"}}
}

func (c *core) Definition(context.Context) (engine.Definition, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return engine.Definition{Text: []byte(c.text)}, c.err
}

// place is the room of beta, which has one module.
type place struct {
	*Room
	mu      sync.Mutex // what a Watch reads meanwhile: see say
	hv      *judge
	engine  *core
	modules []Module
	all     []appmodules.Module
	left    []appmodules.Module
	peer    error // what the other node answers
	clear   error // why it keeps what it has under the name of a module
	host    error // and makes no image
}

func newPlace() *place {
	p := &place{}
	p.hv = &judge{Hypervisor: fake.New(fake.Config{}), mu: &p.mu}
	p.engine = &core{mu: &p.mu, word: vmmanager.Off.String(), text: "vm web01"}
	p.modules = []Module{{"web01", "web01", p.engine}}
	p.Room = New(Config{Self: "beta", Sockets: "/run", Hypervisor: p.hv, Logger: slog.New(slog.DiscardHandler),
		Modules: func() (all []Module) {
			p.say(func() { all = slices.Clone(p.modules) })
			return all
		},
		All: func() []appmodules.Module { return p.all }, Left: func() []appmodules.Module { return p.left },
		MayClear: func(_ string, from cluster.NodeID) error {
			if from != "alpha" {
				return errors.New("it is not of " + string(from))
			}
			return p.clear
		},
		MayHost: func(_ string, places []protect.Place) error {
			if len(places) > 0 {
				return p.host
			}
			return nil
		},
		Call: func(_ context.Context, _ cluster.NodeID, q Question, found *[]vmmanager.Finding) error {
			*found = []vmmanager.Finding{{Code: "asked", Fact: q.VM + " " + string(q.Text)}}
			return p.peer
		}})
	return p
}

// say changes what the place says, or reads it.
func (p *place) say(what func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what()
}

var (
	refused = vmmanager.Finding{Level: vmmanager.Refused, Code: "network-missing", Fact: "there is no network lan",
		Remedy: "define it"}
	note = vmmanager.Finding{Level: "note", Code: "uefi", Fact: "UEFI"}
)

// codes are those of notices, in one string.
func codes(all []api.Notice) string {
	var out []string
	for _, x := range all {
		out = append(out, x.Code)
	}
	return strings.Join(out, " ")
}

// TestWatch: a module whose VM is off is judged again and again, and forgotten when it is gone.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			p.Watch(ctx)
		}()
		look := func(when, want string) {
			t.Helper()
			time.Sleep(fitLook)
			synctest.Wait()
			if got := codes(p.Of("web01")); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		p.say(func() { p.hv.found = []vmmanager.Finding{refused} })
		look("a network that is missing", "network-missing")
		p.say(func() { p.hv.found = nil })
		look("it is there", "")
		p.say(func() { p.hv.err = errors.New("libvirtd is away") })
		look("a hypervisor that is away", "not-judged")
		p.say(func() { p.hv.err, p.engine.err = nil, errors.New("it is exchanged") })
		look("an engine that is exchanged", "not-judged") // as before
		p.say(func() {
			p.engine.err, p.hv.found, p.engine.word = nil, []vmmanager.Finding{refused}, vmmanager.Running.String()
		})
		if got := codes(p.Of("web01")); got != "" {
			t.Errorf("as soon as the VM runs here: %q", got)
		}
		look("the VM runs here", "")
		p.say(func() { p.engine.word = vmmanager.Absent.String() })
		look("it is absent", "network-missing")
		p.say(func() { p.engine.text = "vm web01, mended" })
		if got := codes(p.Of("web01")); got != "" {
			t.Errorf("what was said of another text: %q", got)
		}
		look("that is judged too", "network-missing")
		p.say(func() { p.hv.slow = true })
		look("a slow hypervisor", "network-missing") // as before
		p.say(func() { p.engine.text, p.hv.slow, p.hv.found = "vm web01, mended again", false, nil })
		look("another text is not behind in the queue", "")
		p.say(func() { p.hv.found = []vmmanager.Finding{refused} })
		look("a late judgement of the one before changes nothing", "network-missing")
		p.Hear("web01", []api.Notice{{Code: "theirs"}})
		p.say(func() { p.modules = nil })
		look("the module is gone", "")
		if got := codes(p.Peer("web01")); got != "" {
			t.Errorf("what its peer said stays: %q", got)
		}
		cancel()
		<-ended
	})
}

// TestWhereToEdit: what an edit would mend says that one on either node counts.
func TestWhereToEdit(t *testing.T) {
	p := newPlace()
	p.hv.found = []vmmanager.Finding{{Level: vmmanager.Refused, Code: "network-missing", Fact: "there is no network lan",
		Remedy: "`virsh edit` " + vmmanager.OnItsHost + " names another one"}}
	check := func(want string) {
		t.Helper()
		if got := p.judge(t.Context(), p.modules[0]).found; len(got) != 1 || got[0].Remedy != want {
			t.Errorf("it says %+v, want %q", got, want)
		}
	}
	check("`virsh edit` on either host names another one")
	if !strings.Contains(p.hv.found[0].Remedy, vmmanager.OnItsHost) {
		t.Error("what the hypervisor keeps was changed")
	}
}

// TestNameTaken: a VM of that name is in the way unless it is only what a lost module has left.
func TestNameTaken(t *testing.T) {
	p := newPlace()
	ctx := t.Context()
	q := Question{VM: "db01", Text: []byte("vm db01")}
	p.hv.found = []vmmanager.Finding{note, {Level: vmmanager.Refused, Code: "name-taken", Fact: "as libvirt says it"}}
	answer := func(what, want string) {
		t.Helper()
		found, err := p.Answer(ctx, "alpha", q)
		var got []string
		for _, f := range found {
			got = append(got, f.Code)
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v, want %q", what, got, err, want)
		}
	}
	answer("a new name", "uefi name-taken")
	def := vmmanager.Definition{Name: "db01", Text: []byte("vm db01"),
		Disks: []vmmanager.Disk{{Target: "vda", Path: "/x"}}}
	if err := p.hv.Define(ctx, def); err != nil {
		t.Fatal(err)
	}
	answer("a VM with a disk of its own", "name-taken uefi")
	f, err := p.Taken(ctx, "db01", false)
	if err != nil || f == nil || !strings.Contains(f.Remedy, "virsh undefine db01") {
		t.Errorf("it says %+v, %v", f, err)
	}
	on, err := p.hv.Rewire(def, []vmmanager.Endpoint{{Target: "vda", Socket: "/run/db01-vda.sock"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.hv.Define(ctx, on); err != nil {
		t.Fatal(err)
	}
	taken := func() bool {
		t.Helper()
		f, err := p.Taken(ctx, "db01", false)
		if err != nil {
			t.Fatal(err)
		}
		return f != nil
	}
	if taken() {
		t.Error("what a lost module has left is in the way")
	}
	m := appmodules.Module{Name: "db01", Spec: appmodules.VM{Domain: "db01"}}
	p.all = []appmodules.Module{m}
	if !taken() {
		t.Error("the VM of a module is in nobody's way")
	}
	p.all, p.left = nil, []appmodules.Module{m}
	if !taken() {
		t.Error("the VM of a work is in nobody's way")
	}
	p.left = nil
	// libvirt lists no disk on a volume among those of a definition.
	p.hv.on = p.hv.On(on)
	on.Disks = nil
	if err := p.hv.Define(ctx, on); err != nil {
		t.Fatal(err)
	}
	if taken() {
		t.Error("what a lost module has left is in the way, where the definition lists no disks")
	}
	p.hv.on[0].Socket = "/run/other/db01.sock"
	if !taken() {
		t.Error("a VM on another tool's socket is in nobody's way")
	}
	p.hv.on[0].Socket = "/run/db01-vda.sock"
	if err := p.hv.Start(ctx, "db01"); err != nil {
		t.Fatal(err)
	}
	if !taken() {
		t.Error("a VM that runs is in nobody's way")
	}
	if f, err := p.Taken(ctx, "db01", true); f != nil || err != nil {
		t.Errorf("what is left of a module is in its own way: %+v, %v", f, err)
	}
}

// TestRoomForImages: what a node would refuse of the module and its images it says when it is asked of the VM.
func TestRoomForImages(t *testing.T) {
	p := newPlace()
	old := Question{VM: "db01"} // as an older release asks
	q := Question{VM: "db01", Module: "db01", Places: []protect.Place{{Target: "vda", Size: 512}}}
	answer := func(q Question, want error) {
		t.Helper()
		if _, err := p.Answer(t.Context(), "alpha", q); !errors.Is(err, want) {
			t.Errorf("%+v: %v, want %v", q, err, want)
		}
	}
	answer(q, nil)
	p.host = errors.New("no room")
	answer(q, p.host)
	answer(old, nil)
	p.clear = errors.New("it has data")
	answer(q, p.clear)
	answer(old, nil)
	q.Places[0].Path = "x.raw"
	if old.Check() != nil || q.Check() == nil {
		t.Error("what is a place?")
	}
}

// TestAsk: the node that would get the second copy is asked; an older one cannot say.
func TestAsk(t *testing.T) {
	p := newPlace()
	q := Question{VM: "web01", Text: []byte("text")}
	if found, err := p.Ask(t.Context(), "alpha", q); err != nil || found[0].Fact != "web01 text" {
		t.Errorf("it answers %+v, %v", found, err)
	}
	p.peer = cluster.ErrOlder
	if found, err := p.Ask(t.Context(), "alpha", q); err != nil || len(found) != 1 || found[0].Code != "not-judged" {
		t.Errorf("an older one answers %+v, %v", found, err)
	}
	p.peer = api.ErrUnreach
	if _, err := p.Ask(t.Context(), "alpha", q); !errors.Is(err, api.ErrUnreach) {
		t.Errorf("one that is away: %v", err)
	}
	if (Question{VM: "a/b"}).Check() == nil || (Question{VM: "web01"}).Check() != nil {
		t.Error("what is the name of a VM?")
	}
}

// TestSlowHost: a host whose hypervisor takes minutes says that it is still looking, before anybody who waits for that
// gives it up for dead.
func TestSlowHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace()
		p.hv.slow = true
		p.cfg.Call = func(ctx context.Context, _ cluster.NodeID, q Question, found *[]vmmanager.Finding) (err error) {
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				*found, err = p.Answer(context.WithoutCancel(ctx), "alpha", q)
			}()
			select {
			case <-answered:
				return err
			case <-ctx.Done():
				return errors.Join(api.ErrUnreach, ctx.Err())
			}
		}
		began := time.Now()
		_, err := p.Ask(t.Context(), "beta", Question{VM: "web01"})
		if !errors.Is(err, api.ErrConflict) ||
			!strings.Contains(err.Error(), "web01 would run on beta is still being looked at") {
			t.Errorf("a slow host: %v", err)
		}
		if took := time.Since(began); took >= api.WorkTime {
			t.Errorf("it took %v: the admin's call was cut before", took)
		}
	})
}

// TestMayMove: a VM is moved to a node that would not start it only when that is confirmed.
func TestMayMove(t *testing.T) {
	p := newPlace()
	p.Hear("web01", []api.Notice{{Level: string(vmmanager.Refused), Text: "there is no network lan"}})
	for _, c := range []struct {
		to   string
		yes  bool
		want error
	}{{"alpha", false, api.ErrConfirm}, {"alpha", true, nil}, {"beta", false, nil}} {
		if err := p.MayMove("web01", c.to, c.yes); !errors.Is(err, c.want) {
			t.Errorf("to %s, confirmed %v: %v", c.to, c.yes, err)
		}
	}
	p.mine["web01"] = judgement{p.engine, p.engine.State().Digest,
		[]api.Notice{{Level: string(vmmanager.Refused), Text: "no memory"}}}
	if err := p.MayMove("web01", "beta", false); !errors.Is(err, api.ErrConfirm) ||
		!strings.Contains(err.Error(), "beta would not start") {
		t.Errorf("to this node: %v", err)
	}
}
