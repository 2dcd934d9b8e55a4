package witness

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"duet/cluster"
)

func TestOneYesPerEpoch(t *testing.T) {
	c := newBench(t).town()
	alpha, beta := c.client("alpha", ""), c.client("beta", "")
	mustAsk(t, alpha, ask("alpha", 3, 3), true, "promised epoch 3 to alpha") // seeds an empty witness
	mustAsk(t, beta, ask("beta", 4, 2), false, "complete at epoch 2")        // a stale copy
	mustAsk(t, beta, ask("beta", 3, 3), false, "promised to alpha")
	mustAsk(t, beta, ask("beta", 4, 3), true, "promised epoch 4 to beta")
	mustAsk(t, alpha, ask("alpha", 4, 3), false, "promised to beta")
	mustAsk(t, alpha, ask("alpha", 5, 3), false, "complete at epoch 3")
	mustAsk(t, beta, ask("beta", 4, 3), true, "") // it may ask again
	ans := mustAsk(t, beta, ask("beta", 5, 4), true, "")
	if want := (cluster.Record{Epoch: 5, Holder: "beta", Promised: 5, To: "beta"}); ans.Know != want {
		t.Errorf("knows %+v", ans.Know)
	}
	// Another module has a record of its own.
	other := ask("alpha", 1, 0)
	other.Module = "db"
	mustAsk(t, alpha, other, true, "")
	g, err := alpha.Hello(t.Context())
	if err != nil || g.Modules != 2 || g.Clusters != 1 || g.Node != "alpha" || g.Cluster != "prod" || g.Version != "1.0" ||
		g.Time.IsZero() {
		t.Errorf("%+v %v", g, err)
	}
}

func TestClustersAreApart(t *testing.T) {
	b := newBench(t)
	c, d := b.town(), b.town()
	mustAsk(t, c.client("alpha", ""), ask("alpha", 7, 7), true, "")
	mustAsk(t, d.client("beta", ""), ask("beta", 1, 0), true, "") // the same module name, another record

	intruder := d
	intruder.id = c.id // d's certificate, c's ID
	cl := intruder.client("alpha", "")
	before := b.store.copy()
	_, err1 := cl.Ask(t.Context(), ask("alpha", 8, 7))
	_, err2 := cl.Hello(t.Context())
	err3 := cl.ForgetModule(t.Context(), "web01")
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, ErrForeign) {
			t.Errorf("got %v", err)
		}
	}
	if fmt.Sprint(before) != fmt.Sprint(b.store.copy()) {
		t.Error("the store was changed")
	}
	// Forgetting one leaves the other.
	if err := b.srv.Forget(c.id); err != nil {
		t.Fatal(err)
	}
	if _, err := c.client("alpha", "").Hello(t.Context()); !errors.Is(err, ErrUnknownCluster) {
		t.Errorf("forgotten cluster: %v", err)
	}
	mustAsk(t, d.client("alpha", ""), ask("alpha", 1, 0), false, "promised to beta")
	if got := b.srv.Clusters(); len(got) != 1 || got[0].ID != d.id || got[0].Modules != 1 {
		t.Errorf("%+v", got)
	}
	if keys, _ := b.store.Keys(votePrefix + c.id); len(keys) != 0 {
		t.Errorf("left behind: %v", keys)
	}
	if err := b.srv.Forget(c.id); !errors.Is(err, ErrUnknownCluster) {
		t.Errorf("second Forget: %v", err)
	}
}

func TestRestartKeepsRecords(t *testing.T) {
	b := newBench(t)
	c := b.town()
	alpha, beta := c.client("alpha", ""), c.client("beta", "")
	mustAsk(t, alpha, ask("alpha", 4, 3), true, "")
	key := b.srv.Fingerprint()
	b.restart()
	if b.srv.Fingerprint() != key {
		t.Fatal("the key changed")
	}
	mustAsk(t, beta, ask("beta", 4, 4), false, "promised to alpha") // on the connection of before the restart
	mustAsk(t, alpha, ask("alpha", 4, 3), true, "")
	if g, err := beta.Hello(t.Context()); err != nil || g.Modules != 1 {
		t.Errorf("%+v %v", g, err)
	}
}

func TestAnswerLost(t *testing.T) {
	b := newBench(t)
	c := b.town()
	b.store.hook(func(key string) (bool, error) { return true, errors.New("killed") })
	if ans, err := c.client("alpha", "").Ask(t.Context(), ask("alpha", 4, 3)); err == nil || ans.Yes {
		t.Fatalf("%+v %v", ans, err)
	}
	b.store.hook(nil)
	b.restart()
	mustAsk(t, c.client("beta", ""), ask("beta", 4, 4), false, "promised to alpha")
	mustAsk(t, c.client("alpha", ""), ask("alpha", 4, 3), true, "")
}

func TestStoreFails(t *testing.T) {
	b := newBench(t)
	c := b.town()
	alpha, beta := c.client("alpha", ""), c.client("beta", "")
	b.store.hook(diskFull)
	for range 2 {
		ans, err := alpha.Ask(t.Context(), ask("alpha", 4, 3))
		if !errors.Is(err, ErrStore) || ans.Yes || !strings.Contains(err.Error(), "no space left") {
			t.Fatalf("%+v %v", ans, err)
		}
	}
	b.store.hook(nil)
	mustAsk(t, beta, ask("beta", 4, 3), true, "") // nothing was promised
	// A yes is never said from what a failed save may have left: it is saved again.
	b.store.hook(func(string) (bool, error) { return true, errDisk })
	for range 2 {
		if ans, err := beta.Ask(t.Context(), ask("beta", 5, 4)); !errors.Is(err, ErrStore) || ans.Yes {
			t.Fatalf("%+v %v", ans, err)
		}
	}
	b.store.hook(nil)
	b.store.mu.Lock()
	b.store.data[voteKey(c.id, "web01")] = []byte(`{"epoch":9,"promised":3}`)
	b.store.mu.Unlock()
	if _, err := beta.Ask(t.Context(), ask("beta", 10, 10)); !errors.Is(err, ErrStore) {
		t.Errorf("damaged record: %v", err)
	}
	b.store.hook(func(string) (bool, error) { return false, errDisk })
	if _, err := b.srv.NewToken(0); !errors.Is(err, ErrStore) {
		t.Errorf("token: %v", err)
	}
}

func TestSavedBeforeAnswered(t *testing.T) {
	b := newBench(t)
	c := b.town()
	alpha := c.client("alpha", "")
	for e := cluster.Epoch(1); e < 20; e++ {
		saves := b.store.count()
		mustAsk(t, alpha, ask("alpha", e, e-1), true, "")
		var r cluster.Record
		if ok, err := b.store.Load(voteKey(c.id, "web01"), &r); !ok || err != nil || r.Promised != e ||
			b.store.count() != saves+1 {
			t.Fatalf("epoch %d: %+v %v", e, r, err)
		}
	}
}

func TestRace(t *testing.T) {
	b := newBench(t)
	c := b.town()
	const epochs = 40
	var yes [2][epochs]atomic.Int32
	var answered atomic.Int32
	ctx := within(t, 30*time.Second)
	var wg sync.WaitGroup
	for i, name := range []cluster.NodeID{"alpha", "beta"} {
		cl := c.client(string(name), "")
		for range 4 {
			wg.Go(func() {
				for e := range cluster.Epoch(epochs) {
					a := cluster.Ask{Module: "web01", Node: name, Epoch: e + 1, Complete: e}
					ans, err := cl.Ask(ctx, a)
					for err != nil && ctx.Err() == nil { // it is restarting
						ans, err = cl.Ask(ctx, a)
					}
					if ans.Yes {
						yes[i][e].Add(1)
					}
					answered.Add(1)
				}
			})
		}
	}
	for i := range int32(3) {
		for answered.Load() < (i+1)*8*epochs/5 && ctx.Err() == nil {
			runtime.Gosched()
		}
		b.restart()
	}
	wg.Wait()
	for e := range epochs {
		a, b := yes[0][e].Load(), yes[1][e].Load()
		if a > 0 && b > 0 || a+b == 0 {
			t.Errorf("epoch %d: %d times yes to alpha, %d to beta", e+1, a, b)
		}
	}
}

func TestTurns(t *testing.T) {
	b := newBench(t)
	c := b.town()
	alpha, beta := c.client("alpha", ""), c.client("beta", "")
	var saves atomic.Int32
	overtaken, got := make(chan struct{}), make(chan cluster.Answer, 1)
	b.store.hook(func(string) (bool, error) {
		if saves.Add(1) > 1 {
			close(overtaken)
			return true, nil
		}
		go func() {
			ans, err := beta.Ask(t.Context(), ask("beta", 1, 0))
			if err != nil {
				t.Error(err)
			}
			got <- ans
		}()
		select {
		case <-overtaken:
		case <-time.After(patience / 2):
		}
		return true, nil
	})
	mustAsk(t, alpha, ask("alpha", 1, 0), true, "")
	if ans := <-got; ans.Yes {
		t.Errorf("both got epoch 1: %+v", ans)
	}
}

func TestModulesDoNotWait(t *testing.T) {
	b := newBench(t)
	c := b.town()
	alpha := c.client("alpha", "")
	hung, release := make(chan struct{}), make(chan struct{})
	b.store.hook(func(key string) (bool, error) {
		if strings.HasSuffix(key, "/web01") {
			close(hung)
			<-release
		}
		return true, nil
	})
	done := make(chan error, 1)
	go func() {
		_, err := alpha.Ask(t.Context(), ask("alpha", 1, 0))
		done <- err
	}()
	<-hung
	other := ask("alpha", 1, 0)
	other.Module = "db"
	mustAsk(t, alpha, other, true, "")
	b.store.hook(nil)
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestForgetModule(t *testing.T) {
	b := newBench(t)
	c := b.town()
	alpha := c.client("alpha", "")
	mustAsk(t, alpha, ask("alpha", 9, 9), true, "")
	for range 2 {
		if err := alpha.ForgetModule(t.Context(), "web01"); err != nil {
			t.Fatal(err)
		}
	}
	if g, err := alpha.Hello(t.Context()); err != nil || g.Modules != 0 {
		t.Errorf("%+v %v", g, err)
	}
	mustAsk(t, c.client("beta", ""), ask("beta", 1, 0), true, "")
	if err := alpha.ForgetModule(t.Context(), "a/b"); !errors.Is(err, ErrBadRequest) {
		t.Errorf("got %v", err)
	}
}

func TestFull(t *testing.T) {
	c := newBench(t).town()
	tn, err := c.srv.tenant(c.id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxModules + 1 {
		a := cluster.Ask{Module: fmt.Sprint("m", i), Node: "alpha", Epoch: 1}
		if _, err := c.srv.ask(party{tn, "alpha", ""}, a); (i == maxModules) != errors.Is(err, ErrFull) {
			t.Fatalf("module %d: %v", i, err)
		}
	}
}
