package api_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"duet/console/api"
	"duet/console/api/apitest"
)

func updating(t *testing.T) bool {
	t.Helper()
	f := flag.Lookup("update")
	return f != nil && f.Value.String() == "true"
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "rewrite the golden files")
	flag.Parse()
	os.Exit(m.Run())
}

func send(t *testing.T, h http.Handler, method, path, contentType, body string) *http.Response {
	t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestCalls: each request reaches the Backend as it was meant, or is refused with the right status.
func TestCalls(t *testing.T) {
	for _, c := range []struct {
		method, path, contentType, body string
		status                          int
		asked, has                      string
	}{
		{"GET", "/v1/status", "", "", 200, "status", `"cluster":"office"`},
		{"GET", "/v1/modules/db", "", "", 200, "status", `"vm":"postgres"`},
		{"GET", "/v1/modules/nosuch", "", "", 404, "status", "there are web01, db, old"},
		{"GET", "/v1/modules/db/log", "", "", 200, "log db 50", `"on":"granted"`},
		{"GET", "/v1/modules/db/log?n=1", "", "", 200, "log db 1", `"node":"beta"`},
		{"GET", "/v1/modules/db/log?n=2000000000", "", "", 200, "log db 10000", ""},
		{"GET", "/v1/modules/db/log?n=0", "", "", 422, "", "expected number >= 1"},
		{"GET", "/v1/modules/db/log?n=x", "", "", 422, "", "invalid integer"},
		{"GET", "/v1/modules/db/log?m=3", "", "", 422, "", "unknown query"},
		{"GET", "/v1/volumes", "", "", 200, "status", `"name":"web01/vda"`},
		{"POST", "/v1/modules/db/swap", "", "", 200, "act db swap {Node: Yes:false}", "has the order to swap"},
		{"POST", "/v1/modules/db/stop", "application/json", `{"node":"beta"}`, 200, "act db stop {Node:beta Yes:false}", ""},
		{"POST", "/v1/modules/web01/prim", "application/json", `{"node":"beta"}`, 428, "act web01 prim {Node:beta Yes:false}",
			"1.2 GiB may differ"},
		{"POST", "/v1/modules/web01/prim", "application/json", `{"node":"beta","yes":true}`, 200,
			"act web01 prim {Node:beta Yes:true}", ""},
		{"POST", "/v1/modules/db/explode", "", "", 422, "", `expected value to be one of`},
		{"POST", "/v1/modules/db/stop", "application/json", `{"nodes":"beta"}`, 422, "", "unexpected property"},
		{"POST", "/v1/modules/db/stop", "application/json", `{"node":`, 400, "", "unexpected end"},
		{"POST", "/v1/modules/db/stop", "application/xml", `<node/>`, 415, "", "xml"},
		{"POST", "/v1/vms/lonely/check", "", "", 200, "check protect lonely {Peer: Module: Config: Images:[]}", `"ok":false`},
		{"POST", "/v1/vms/web/check", "application/json", `{"peer":"beta"}`, 200,
			"check protect web {Peer:beta Module: Config: Images:[]}", `"ok":true`},
		{"POST", "/v1/modules/db/return", "", "", 200, "return db", `"id":"t1"`},
		{"POST", "/v1/modules/db/release", "", "", 200, "release db {WithoutPeer:false}", `"id":"t1"`},
		{"POST", "/v1/modules/db/release", "application/json", `{"without_peer":true}`, 200, "release db {WithoutPeer:true}",
			`"id":"t1"`},
		{"DELETE", "/v1/cluster/nodes/beta", "", "", 200, "remove node beta", `"modules":["db"]`},
		{"DELETE", "/v1/cluster/nodes/gamma", "", "", 404, "remove node gamma", "there are alpha, beta"},
		{"POST", "/v1/vms/my%20vm/protect", "application/json", `{"peer":"beta"}`, 200,
			"protect my vm {Peer:beta Module: Config: Images:[]}", `"id":"t1"`},
		{"POST", "/v1/vms/a%2Fb/protect", "", "", 200, "protect a/b {Peer: Module: Config: Images:[]}", ""},
		{"POST", "/v1/volumes/db/vda/verify", "", "", 200, "verify db/vda false", ""},
		{"POST", "/v1/volumes/db/vda/verify?repair=true", "", "", 200, "verify db/vda true", ""},
		{"POST", "/v1/volumes/db/vda/verify?repair=maybe", "", "", 422, "", "invalid boolean"},
		{"GET", "/v1/tasks/t1", "", "", 200, "", "making the volume"},
		{"GET", "/v1/tasks/t2", "", "", 404, "", "kept for an hour"},
		{"GET", "/v1/config/db", "", "", 200, "config db", `kind: vm`},
		{"PUT", "/v1/config", "application/yaml", "name: web01\n", 200, `apply to 0; check "name: web01\n"`, `"version":4`},
		{"PUT", "/v1/config?base=3", "application/yaml", "name: web01\n", 200, `apply to 3; check "name: web01\n"`,
			`"version":4`},
		{"PUT", "/v1/config", "application/yaml", "nam: web01\n", 400, `apply to 0; check "nam: web01\n"`, "name: missing"},
		{"POST", "/v1/config/check", "application/yaml", "name: web01\n", 204, `check "name: web01\n"`, ""},
		{"POST", "/v1/config/check", "application/yaml", "", 400, "", "body"},
		{"PUT", "/v1/config", "application/yaml", strings.Repeat("#", 2<<20), 413, "", "large"},
		{"POST", "/v1/cluster/token?life=90m", "", "", 200, "token 1h30m0s", "duet1."},
		{"POST", "/v1/cluster/token?life=1y", "", "", 400, "", "say a duration"},
		{"GET", "/v1/doctor", "", "", 200, "doctor", `"fact":"libvirt 9.0.0 with QEMU 7.2.15"`},
		{"GET", "/v1/support", "", "", 200, "support", "alpha/duetd.log"},
		{"DELETE", "/v1/status", "", "", 405, "", ""},
		{"GET", "/v1/", "", "", 404, "", ""},
		{"GET", "/docs", "", "", 404, "", ""},
		{"GET", "/metrics", "", "", 200, "", "up 1"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			b := apitest.New()
			metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "up 1") })
			res := send(t, api.Handler(b, "1.0", metrics), c.method, c.path, c.contentType, c.body)
			got := text(t, res)
			if res.StatusCode != c.status || !strings.Contains(got, c.has) {
				t.Errorf("status %d, want %d; body %.200s, want %q", res.StatusCode, c.status, got, c.has)
			}
			if asked := strings.Join(b.Asked(), "; "); asked != c.asked {
				t.Errorf("asked %.100q, want %q", asked, c.asked)
			}
		})
	}
}

// TestProblems: every kind of failure has its status, and KindOf takes it back.
func TestProblems(t *testing.T) {
	for kind, status := range map[error]int{
		api.ErrNotFound: 404, api.ErrInvalid: 400, api.ErrConflict: 409, api.ErrConfirm: 428, api.ErrUnreach: 502,
		errors.New("disk full"): 500,
	} {
		b := apitest.New()
		b.Fail = func(string) error { return fmt.Errorf("module db: %w", kind) }
		res := send(t, api.Handler(b, "1.0", nil), "POST", "/v1/modules/db/stop", "", "")
		if res.StatusCode != status || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%v: %d %s, want %d as a problem document", kind, res.StatusCode, res.Header.Get("Content-Type"), status)
		}
		var p struct {
			Status int
			Detail string
		}
		if err := json.Unmarshal([]byte(text(t, res)), &p); err != nil || p.Status != status ||
			p.Detail != "module db: "+kind.Error() {
			t.Errorf("%v: problem %+v, %v", kind, p, err)
		}
		if back := api.KindOf(status); status != 500 && back != kind {
			t.Errorf("KindOf(%d) = %v, want %v", status, back, kind)
		}
	}
}

// TestOperations keeps the list of operations: a change of it is a change for every tool that was generated.
func TestOperations(t *testing.T) {
	res := send(t, api.Handler(apitest.New(), "1.0", nil), "GET", "/openapi.json", "", "")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Responses   map[string]any
		}
	}
	if err := json.Unmarshal([]byte(text(t, res)), &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatal(err, doc.OpenAPI)
	}
	var lines []string
	for path, ops := range doc.Paths {
		for method, op := range ops {
			var statuses []string
			for s := range op.Responses {
				statuses = append(statuses, s)
			}
			slices.Sort(statuses)
			lines = append(lines,
				fmt.Sprintf("%-4s %-40s %-8s %s\n", strings.ToUpper(method), path, op.OperationID, strings.Join(statuses, " ")))
		}
	}
	slices.Sort(lines)
	got, name := strings.Join(lines, ""), filepath.Join("testdata", "operations.txt")
	if updating(t) {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || got != string(want) {
		t.Errorf("operations changed (-update rewrites the list), %v:\n%s", err, got)
	}
}

// FuzzRequest: whatever is sent gets an answer and no panic.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "modules/db/stop", "application/json", `{"node":"beta"}`)
	f.Add("PUT", "config", "application/yaml", "name: x")
	f.Add("GET", "modules/%2e%2e/log", "", "")
	f.Add("GET", "modules/db/log?n=1&n=2", "", "")
	f.Add("POST", "cluster/token?life=%00", "text/plain", "\xff")
	h := api.Handler(apitest.New(), "1.0", nil)
	f.Fuzz(func(t *testing.T, method, path, contentType, body string) {
		req, err := http.NewRequest(method, "/v1/"+path, strings.NewReader(body))
		if err != nil {
			t.Skip("not a request at all")
		}
		req.Header.Set("Content-Type", contentType)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		if rec.Code < 200 || rec.Code == 500 {
			t.Errorf("%s %q: status %d: %s", method, path, rec.Code, rec.Body)
		}
	})
}
