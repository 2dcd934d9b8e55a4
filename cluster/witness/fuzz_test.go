package witness

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"duet/cluster"
)

// fuzzServer is a witness with one cluster, whose node alpha holds epoch 3.
func fuzzServer(f *testing.F) (*Server, town, *memory) {
	st := newMemory()
	s, err := New(Config{Dir: f.TempDir(), Store: st})
	if err != nil {
		f.Fatal(err)
	}
	c := town{&bench{t: f, srv: s, store: st}, newAuthority(f), "0123456789abcdef"}
	if err := s.register(c.token().Secret, c.registration()); err != nil {
		f.Fatal(err)
	}
	return s, c, st
}

// FuzzCall sends hostile paths and bodies, as a node of the cluster. Whatever comes back is JSON,
// and a yes is in the store.
func FuzzCall(f *testing.F) {
	s, c, st := fuzzServer(f)
	cert := c.ca.node(f, "beta", nil)
	h := s.routes(&gate{})
	base := "/v1/clusters/" + c.id
	f.Add(base+"/ask", []byte(`{"module":"web01","node":"beta","epoch":4,"complete":3}`))
	f.Add(base+"/ask", []byte(`{"module":"web01","node":"alpha","epoch":18446744073709551615}`))
	f.Add(base+"/forget-module", []byte(`{"module":"web01"}`))
	f.Add(base+"/hello", []byte("[[[["))
	f.Add("/v1/register", []byte(`{"secret":"AAAA","id":"0123456789abcdef","name":"x","ca":"MII="}`))
	f.Add("/v1/clusters/..%2f/ask", bytes.Repeat([]byte("{"), maxBody+1))
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		req.URL.Path = path
		req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code >= 300 && w.Code < 400 {
			return // the path was not clean
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%d %q", w.Code, w.Body)
		}
		var ans cluster.Answer
		if json.Unmarshal(w.Body.Bytes(), &ans) == nil && ans.Yes {
			var a cluster.Ask
			var r cluster.Record
			if err := json.Unmarshal(body, &a); err != nil || a.Node != "beta" {
				t.Fatalf("yes to %s", body)
			}
			if ok, err := st.Load(voteKey(c.id, a.Module), &r); !ok || err != nil || r != ans.Know || r.Valid(voter) != nil {
				t.Fatalf("yes that is not stored: %s %+v %v", body, r, err)
			}
		}
		if got := s.Clusters(); len(got) != 1 || got[0].Modules > maxModules {
			t.Fatalf("%+v", got)
		}
	})
}

// FuzzRegistration feeds what a cluster may tell of itself, with a good token.
func FuzzRegistration(f *testing.F) {
	s, c, _ := fuzzServer(f)
	r := c.registration()
	f.Add(r.ID, r.Name, r.CA)
	f.Add("x", "", []byte{0x30, 0x80})
	s.cfg.Now = func() time.Time { return time.Unix(0, 0) }
	f.Fuzz(func(t *testing.T, id, name string, ca []byte) {
		tok, err := s.NewToken(0)
		if err != nil {
			t.Fatal(err)
		}
		reg := Registration{ID: id, Name: name, CA: ca}
		if err := s.register(tok.Secret, reg); err == nil {
			if _, err := reg.check(); err != nil {
				t.Fatal("it was registered:", err)
			}
		}
		s.cfg.Store.Delete(tokensKey)
	})
}

// FuzzAnswer feeds a client what a witness may say.
func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"yes":true,"know":{"promised":4,"to":"alpha"}}`))
	f.Add(403, []byte(`{"kind":"foreign","error":"x"}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		var ans cluster.Answer
		if err := (answer{status, body}).read(&ans); err == nil && status != http.StatusOK {
			t.Errorf("%d %q is no error", status, body)
		}
	})
}
