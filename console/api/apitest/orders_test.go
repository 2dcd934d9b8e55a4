package apitest_test

import (
	"testing"

	"duet/console/api"
	"duet/console/api/apitest"
)

// TestNobodyLeads: an order that is about the node that leads leads to nothing where none does.
func TestNobodyLeads(t *testing.T) {
	for _, c := range []struct {
		action     api.Action
		node, want string // roles on alpha and beta afterwards
	}{
		{api.Restart, "", "WAIT WAIT"}, {api.Swap, "", "WAIT WAIT"}, {api.Second, "", "WAIT WAIT"},
		{api.Prim, "", "WAIT WAIT"}, {api.Swap, "beta", "WAIT WAIT"}, {api.Stop, "nosuch", "WAIT WAIT"},
		{api.Stop, "", "STOP STOP"}, {api.Stop, "beta", "WAIT STOP"}, {api.Start, "", "PRIM SECOND"},
		{api.Prim, "beta", "SECOND PRIM"}, {api.Second, "alpha", "SECOND PRIM"},
	} {
		b := apitest.New()
		st := apitest.Sample()
		for i := range st.Modules {
			if st.Modules[i].Name == "web01" {
				for j := range st.Modules[i].Nodes {
					st.Modules[i].Nodes[j].Role = "WAIT"
				}
			}
		}
		b.Set(st)
		if _, err := b.Act(t.Context(), "web01", c.action, api.ActionRequest{Node: c.node, Yes: true}); err != nil {
			t.Errorf("%s on %q: %v", c.action, c.node, err)
		}
		st, err := b.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m, err := st.Module("web01")
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Nodes[0].Role + " " + m.Nodes[1].Role; got != c.want {
			t.Errorf("%s on %q: %s, want %s", c.action, c.node, got, c.want)
		}
	}
}
