package witness

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"duet/cluster/enroll"
	"duet/cluster/ratelimit"
)

func TestRegisterRefuses(t *testing.T) {
	b := newBench(t)
	known := b.town()
	other := newAuthority(t)
	good := func() Registration { return Registration{ID: rand.Text(), Name: "prod", CA: other.cert.Raw} }
	leaf := other.node(t, "alpha", nil).Leaf
	for _, k := range []struct {
		name string
		reg  func(*Registration, *enroll.Token)
		want error
	}{
		{"wrong token", func(_ *Registration, k *enroll.Token) { k.Secret = make([]byte, 20) }, enroll.ErrUnknown},
		{"no token", func(_ *Registration, k *enroll.Token) { k.Secret = nil }, enroll.ErrUnknown},
		{"short ID", func(r *Registration, _ *enroll.Token) { r.ID = "abc" }, ErrBadRequest},
		{"odd ID", func(r *Registration, _ *enroll.Token) { r.ID = "../../../../../../x" }, ErrBadRequest},
		{"no name", func(r *Registration, _ *enroll.Token) { r.Name = "" }, ErrBadRequest},
		{"odd name", func(r *Registration, _ *enroll.Token) { r.Name = "a\x1b[2J" }, ErrBadRequest},
		{"long name", func(r *Registration, _ *enroll.Token) { r.Name = strings.Repeat("x", 65) }, ErrBadRequest},
		{"no CA", func(r *Registration, _ *enroll.Token) { r.CA = nil }, ErrBadRequest},
		{"a node's certificate", func(r *Registration, _ *enroll.Token) { r.CA = leaf.Raw }, ErrBadRequest},
		{"forged CA", func(r *Registration, _ *enroll.Token) { r.CA = bytes.Clone(r.CA); r.CA[len(r.CA)-1] ^= 1 },
			ErrBadRequest},
		{"ID of another", func(r *Registration, _ *enroll.Token) { r.ID = known.id }, ErrTaken},
	} {
		t.Run(k.name, func(t *testing.T) {
			r, tok := good(), b.token()
			k.reg(&r, &tok)
			if err := b.srv.register(tok.Secret, r); !errors.Is(err, k.want) {
				t.Errorf("got %v, want %v", err, k.want)
			}
			if len(b.srv.Clusters()) != 1 {
				t.Error("it was registered")
			}
		})
	}
}

func TestToken(t *testing.T) {
	b := newBench(t)
	now := time.Now()
	b.srv.cfg.Now = func() time.Time { return now }
	r := town{b, newAuthority(t), rand.Text()}.registration()
	tok := b.token()
	bad := r
	bad.Name = ""
	if err := b.srv.register(tok.Secret, bad); !errors.Is(err, ErrBadRequest) {
		t.Fatal(err)
	}
	for range 2 { // the second time the first answer was lost
		if err := b.srv.register(tok.Secret, r); err != nil {
			t.Fatal(err)
		}
	}
	second := town{b, newAuthority(t), rand.Text()}.registration()
	if err := b.srv.register(tok.Secret, second); !errors.Is(err, enroll.ErrUsed) {
		t.Errorf("used token: %v", err)
	}
	if err := b.srv.Forget(r.ID); err != nil {
		t.Fatal(err)
	}
	// Once forgotten, the old request does not bring the ID back without its memory.
	if err := b.srv.register(tok.Secret, r); !errors.Is(err, enroll.ErrUnknown) {
		t.Errorf("repeated after Forget: %v", err)
	}
	late := b.token()
	now = now.Add(enroll.Life)
	if err := b.srv.register(late.Secret, second); !errors.Is(err, enroll.ErrExpired) {
		t.Errorf("expired token: %v", err)
	}
	for k, v := range b.store.copy() {
		if bytes.Contains(v, tok.Secret) || strings.Contains(string(v), tok.String()) {
			t.Errorf("secret is stored in %s", k)
		}
	}
	now = now.Add(25 * time.Hour)
	b.token()
	if records, _ := (tokens{b.store}).Tokens(); len(records) != 1 {
		t.Errorf("%d records", len(records))
	}
}

func TestRegisterAgainKeepsRecords(t *testing.T) {
	b := newBench(t)
	c := b.town()
	mustAsk(t, c.client("alpha", ""), ask("alpha", 2, 2), true, "")
	if _, err := Register(t.Context(), b.addr, b.token(), c.registration()); err != nil {
		t.Fatal(err)
	}
	mustAsk(t, c.client("beta", ""), ask("beta", 2, 2), false, "promised to alpha")
}

func TestTooManyTries(t *testing.T) {
	b := newBench(t)
	now := time.Now()
	b.srv.cfg.Now = func() time.Time { return now }
	r := town{b, newAuthority(t), rand.Text()}.registration()
	tok := b.token()
	try := func(secret []byte, want error) {
		t.Helper()
		if err := b.srv.register(secret, r); !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
	wrong := make([]byte, 20)
	for range 30 { // slowly: no harm
		try(wrong, enroll.ErrUnknown)
		now = now.Add(7 * time.Second)
	}
	now = now.Add(time.Minute)
	for range 10 {
		try(wrong, enroll.ErrUnknown)
	}
	try(wrong, ratelimit.ErrTooManyTries)
	try(tok.Secret, ratelimit.ErrTooManyTries)
	now = now.Add(time.Minute)
	try(tok.Secret, nil)
}

func TestNewRegistrationIsAnother(t *testing.T) {
	b := newBench(t)
	c := b.town()
	mustAsk(t, c.client("alpha", ""), ask("alpha", 7, 7), true, "")
	b.stop()
	b.store = newMemory()
	b.start()
	stale := c.client("beta", "")
	if _, err := stale.Ask(t.Context(), ask("beta", 8, 5)); !errors.Is(err, ErrUnknownCluster) {
		t.Errorf("got %v", err)
	}
	again := c
	again.id = rand.Text()
	if _, err := Register(t.Context(), b.addr, b.token(), again.registration()); err != nil {
		t.Fatal(err)
	}
	if _, err := stale.Ask(t.Context(), ask("beta", 8, 5)); !errors.Is(err, ErrUnknownCluster) {
		t.Errorf("got %v", err)
	}
}

func TestDamagedStore(t *testing.T) {
	b := newBench(t)
	c := b.town()
	for _, bad := range []string{"x", "{}", `{"id":"` + c.id + `","name":"prod","ca":"AAAA"}`} {
		st := newMemory()
		st.data[clusterPrefix+c.id] = []byte(bad)
		if _, err := New(Config{Dir: b.dir, Store: st}); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestFingerprint(t *testing.T) {
	want := Fingerprint{1, 2, 3}
	var f Fingerprint
	if b, _ := want.MarshalText(); f.UnmarshalText(b) != nil || f != want {
		t.Errorf("%s became %s", want, f)
	}
	if f.UnmarshalText([]byte("0a0b")) == nil || f.UnmarshalText([]byte("x")) == nil {
		t.Error("a damaged fingerprint was accepted")
	}
}
