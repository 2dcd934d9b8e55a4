package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"duet/testbed/netns"
)

// Config says what a Site is made of.
type Config struct {
	Prefix   string          // of the namespaces and control groups; one Site at a time may have it
	Cache    string          // the testbed's folder in the user's cache
	Networks []netns.Network // every machine is in all of them, with the addresses that LAN.Addr says
	Machines []Spec
}

// Spec is one machine of a Site.
type Spec struct {
	Name    string
	Release Release
	// Emulated gives it Debian's own kernel, in QEMU without hardware virtualization; else it is a container.
	Emulated bool
}

// Site is some machines and the networks between them, with no way to the outside. Machines are made off; it
// owns them and closes them.
type Site struct {
	LAN      *netns.LAN
	Machines map[string]Machine
}

// NewSite makes the images that are missing, the networks and the machines, which are off. It removes what a dead
// process has left of this prefix. On an error nothing stays behind.
func NewSite(ctx context.Context, cfg Config) (*Site, error) {
	s := &Site{Machines: map[string]Machine{}}
	if err := s.build(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("make machines: %w", err), s.Close())
	}
	return s, nil
}

// build: images come first, as they may take minutes: networks that wait would be of no use.
func (s *Site) build(ctx context.Context, cfg Config) error {
	var names []string
	images := make([]Image, len(cfg.Machines))
	for i, m := range cfg.Machines {
		names = append(names, m.Name)
		make := Host
		if m.Emulated {
			make = Kernel
		}
		var err error
		if images[i], err = make(ctx, cfg.Cache, m.Release); err != nil {
			return err
		}
	}
	lan, err := netns.New(cfg.Prefix, netns.Config{Nodes: names, Networks: cfg.Networks})
	if err != nil {
		return err
	}
	s.LAN = lan
	for i, m := range cfg.Machines {
		var made Machine
		if m.Emulated {
			made, err = newEmulated(ctx, images[i], lan, cfg.Networks, m.Name)
		} else {
			made, err = newContainer(images[i], lan, cfg.Prefix, m.Name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		s.Machines[m.Name] = made
	}
	return nil
}

// Close ends the machines and removes their disks and the networks. It goes on after an error, and returns all.
// Images stay in the cache.
func (s *Site) Close() error {
	var errs []error
	for _, m := range s.Machines {
		errs = append(errs, m.Close())
	}
	if s.LAN != nil {
		errs = append(errs, s.LAN.Close())
	}
	return errors.Join(errs...)
}

// environment is what a command finds that Run runs.
var environment = []string{"PATH=" + path, "HOME=/root", "LOGNAME=root", "USER=root", "TERM=dumb", "LANG=C.UTF-8",
	"DEBIAN_FRONTEND=noninteractive"}

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// identity writes what an installer would ask for into the private copy of an image: names and addresses.
// machine-id is a new one for each copy: two machines of one id would be one to systemd and to libvirt.
func identity(disk scratch, name string, lan *netns.LAN) error {
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return err
	}
	etc := filepath.Join(disk.upper(), "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	for file, text := range map[string]string{
		"hostname":   name + "\n",
		"machine-id": strings.ReplaceAll(string(id), "-", ""),
		"hosts":      "127.0.0.1 localhost\n127.0.1.1 " + name + "\n" + lan.Hosts(),
	} {
		if err := os.WriteFile(filepath.Join(etc, file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
