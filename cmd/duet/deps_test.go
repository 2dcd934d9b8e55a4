package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestLinksLittle: the command line talks to nodes and must not carry what nodes
// are made of, so that it builds and runs on an admin's own computer.
func TestLinksLittle(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, heavy := range []string{"dgraph-io", "memberlist", "libvirt", "nftables", "netlink", "go-fuse", "prometheus",
			"duet/cmd/node", "duet/blockrepl", "duet/vmmanager"} {
			if strings.Contains(dep, heavy) && dep != "duet/blockrepl/durable" {
				t.Errorf("duet links %s", dep)
			}
		}
	}
}
