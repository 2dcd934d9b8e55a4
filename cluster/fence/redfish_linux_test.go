package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// bmc is the Redfish device of a node, as far as fence_redfish uses it.
type bmc struct {
	mu    sync.Mutex
	power string
	lazy  bool // it takes orders and does nothing
}

func (b *bmc) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const system = "/redfish/v1/Systems/1"
	b.mu.Lock()
	defer b.mu.Unlock()
	user, password, _ := r.BasicAuth()
	switch {
	case user != "duet" || password != "hunter2":
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error": {"code": "unauthorized"}}`)
	case r.Method == http.MethodGet && r.URL.Path == system:
		fmt.Fprintf(w, `{"PowerState": %q, "Actions": {"#ComputerSystem.Reset": {"target": "%s/Actions/Reset"}}}`, b.power,
			system)
	case r.Method == http.MethodPost && r.URL.Path == system+"/Actions/Reset":
		var order struct{ ResetType string }
		if err := json.NewDecoder(r.Body).Decode(&order); err == nil && order.ResetType == "ForceOff" && !b.lazy {
			b.power = "Off"
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		http.NotFound(w, r)
	}
}

// TestRedfish: the real fence_redfish against a device that obeys, one that only says so, one that refuses the
// password, and one that is not there.
func TestRedfish(t *testing.T) {
	f, journal := realAgents(t)
	if err := exec.Command("/usr/bin/python3", "-c", "import requests").Run(); err != nil {
		t.Skip("the module requests, which fence_redfish needs, is not installed: ", err)
	}
	for name, c := range map[string]struct {
		bmc      *bmc
		password string
		want     string // part of the error; empty is confirmed
	}{
		"obeys":         {&bmc{power: "On"}, "hunter2", ""},
		"is off":        {&bmc{power: "Off"}, "hunter2", ""},
		"does nothing":  {&bmc{power: "On", lazy: true}, "hunter2", "Timed out waiting to power OFF"},
		"still powers":  {&bmc{power: "PoweringOff", lazy: true}, "hunter2", "Timed out waiting to power OFF"},
		"wrong secrets": {&bmc{power: "On"}, "hunter3", "Unable to get PowerState"},
	} {
		t.Run(name, func(t *testing.T) {
			device := httptest.NewUnstartedServer(c.bmc)
			device.Config.ErrorLog = log.New(io.Discard, "", 0)
			device.StartTLS()
			defer device.Close()
			d := redfish(t, device.URL, c.password)
			if err := f.Inspect(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			err := f.Off(t.Context(), Levels{{d}})
			if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if (err == nil) != (c.bmc.power == "Off") {
				t.Errorf("power %s, but %v", c.bmc.power, err)
			}
			if strings.Contains(fmt.Sprint(err)+journal.String(), "hunter") {
				t.Errorf("the password is shown: %v %s", err, journal)
			}
		})
	}
	gone := httptest.NewTLSServer(nil)
	gone.Close()
	if err := f.Off(t.Context(), Levels{{redfish(t, gone.URL, "hunter2")}}); !errors.Is(err, ErrNotOff) ||
		!strings.Contains(err.Error(), "onnection refused") {
		t.Errorf("no device: %v", err)
	}
}

func redfish(t *testing.T, address, password string) Device {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return Device{Name: "bmc", Agent: "fence_redfish",
		Options: Options{"ip": u.Hostname(), "ipport": u.Port(), "username": "duet",
			"password": password, "systems_uri": "/redfish/v1/Systems/1", "ssl_insecure": "1", "power_timeout": "1"}}
}
