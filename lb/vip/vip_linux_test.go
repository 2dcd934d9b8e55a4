package vip

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// hosts are three namespaces on one bridge, each with an address of 10.78.0.0/24 and of fd78::/64.
type hosts struct {
	t   *testing.T
	all map[string]netns.NsHandle
}

const prefix = "dva-"

func newHosts(t *testing.T) *hosts {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	h := &hosts{t: t, all: map[string]netns.NsHandle{}}
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Set(home); err != nil {
			t.Error(err)
		}
		home.Close()
	})
	run := func(line string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", line, err, out)
		}
	}
	for i, name := range []string{"switch", "a", "b", "client"} {
		space := prefix + name
		exec.Command("ip", "netns", "del", space).Run() // of a run that was killed
		run("netns add " + space)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", space).Run() })
		if h.all[name], err = netns.GetFromName(space); err != nil {
			t.Fatal(err)
		}
		if name == "switch" {
			run("-n " + space + " link add br0 type bridge")
			run("-n " + space + " link set dev br0 up")
			continue
		}
		run("-n " + space + " link add eth0 type veth peer name " + name + " netns " + prefix + "switch")
		run("-n " + prefix + "switch link set dev " + name + " master br0 up")
		run("-n " + space + " link set dev eth0 up")
		run("-n " + space + " link set dev lo up")
		run("-n " + space + " addr add 10.78.0." + string(rune('0'+i)) + "/24 dev eth0")
		run("-n " + space + " addr add fd78::" + string(rune('0'+i)) + "/64 dev eth0 nodad")
	}
	return h
}

// on does something in a namespace.
func (h *hosts) on(name string, what func() error) {
	h.t.Helper()
	if err := netns.Set(h.all[name]); err != nil {
		h.t.Fatal(err)
	}
	if err := what(); err != nil {
		h.t.Fatalf("on %s: %v", name, err)
	}
}

// reached is the hardware address at which a client reaches an address.
func (h *hosts) reached(addr netip.Addr) (at net.HardwareAddr) {
	h.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", prefix+"client", "ping", "-c", "1", "-W", "2",
		addr.String()).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s does not answer: %v\n%s", addr, err, out)
	}
	h.on("client", func() error { at = h.neighbour(addr); return nil })
	return at
}

func (h *hosts) neighbour(addr netip.Addr) net.HardwareAddr {
	h.t.Helper()
	all, err := netlink.NeighList(0, family(addr))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, n := range all {
		if got, _ := netip.AddrFromSlice(n.IP); got.Unmap() == addr {
			return n.HardwareAddr
		}
	}
	return nil
}

// card is the hardware address of a host.
func (h *hosts) card(name string) (at net.HardwareAddr) {
	h.on(name, func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			at = l.Attrs().HardwareAddr
		}
		return err
	})
	return at
}

// TestAddressMoves: an address goes from one host to another, and a client that knew where it was reaches it there at
// its next packet.
func TestAddressMoves(t *testing.T) {
	h := newHosts(t)
	for _, text := range []string{"10.78.0.50/24", "fd78::50/64"} {
		p := netip.MustParsePrefix(text)
		held := func(want string) func() error {
			return func() error {
				if on, err := Held(p.Addr()); err != nil || on != want {
					t.Errorf("%s is on %q, want %q (%v)", p, on, want, err)
				}
				return nil
			}
		}
		h.on("a", held(""))
		for _, name := range []string{"a", "b", "a"} {
			other := map[string]string{"a": "b", "b": "a"}[name]
			h.on(other, func() error { return Drop(p.Addr()) })
			h.on(other, held(""))
			h.on(name, func() error { return Take(p) })
			h.on(name, func() error { return Take(p) }) // twice is once
			h.on(name, held("eth0"))
			if got, want := h.reached(p.Addr()), h.card(name); got.String() != want.String() {
				t.Errorf("the client reaches %s at %s, want %s of %s", p, got, want, name)
			}
		}
		h.on("a", func() error { return Drop(p.Addr()) })
		h.on("a", func() error { return Drop(p.Addr()) })
	}
}

// TestAddressesOfOneNetwork: of two virtual addresses of one network the second stays when the first goes, and neither
// is taken for this host's own.
func TestAddressesOfOneNetwork(t *testing.T) {
	h := newHosts(t)
	first, second := netip.MustParsePrefix("10.78.0.50/16"), netip.MustParsePrefix("10.78.0.51/16")
	h.on("a", func() error { return errors.Join(Take(first), Take(second), Drop(first.Addr())) })
	h.reached(second.Addr())
	h.on("a", func() error {
		own, err := netlink.LinkByName("eth0")
		if err == nil {
			err = netlink.AddrDel(own, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 78, 0, 1), Mask: net.CIDRMask(24, 32)}})
		}
		if Take(first) == nil {
			t.Error("a virtual address made this host one of its network")
		}
		return err
	})
}

// TestAddressOfNoNetwork: where no interface is on the network of an address, that is said.
func TestAddressOfNoNetwork(t *testing.T) {
	h := newHosts(t)
	h.on("a", func() error {
		err := Take(netip.MustParsePrefix("10.79.0.50/24"))
		if err == nil || !strings.Contains(err.Error(), "no interface of this host has an address in 10.79.0.0/24") {
			t.Error(err)
		}
		return nil
	})
}
