package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"duet/cluster/doctor"
	"duet/console/api"
)

// TestDoctorHang: a daemon that takes connections and answers none hangs. It is one finding, and what has its ports is
// no other program.
func TestDoctorHang(t *testing.T) {
	b := behind(t, func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	})
	busy := fresh()
	busy.Ports[0].Problem = doctor.Busy
	b.local = room{busy}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	code := b.run(ctx, []string{"doctor", "--json"})
	var d api.Doctor
	if err := json.Unmarshal([]byte(b.out.String()), &d); err != nil {
		t.Fatal(err)
	}
	bad := problems(d.Findings)
	if code != exitError || len(bad) != 1 || !strings.HasPrefix(bad[0].Fact, "duetd hangs here: ") ||
		!strings.Contains(bad[0].Remedy, "`systemctl restart duetd`") {
		t.Errorf("exit %d, problems %+v", code, bad)
	}
}
