package machine

import (
	"context"
	"errors"
	"fmt"

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
}

// Site is some machines and the networks between them, with no way to the outside.
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

func (s *Site) build(ctx context.Context, cfg Config) error {
	var names []string
	images := map[Release]Image{}
	for _, m := range cfg.Machines {
		names = append(names, m.Name)
		if _, ok := images[m.Release]; ok {
			continue
		}
		im, err := Host(ctx, cfg.Cache, m.Release)
		if err != nil {
			return err
		}
		images[m.Release] = im
	}
	lan, err := netns.New(cfg.Prefix, netns.Config{Nodes: names, Networks: cfg.Networks})
	if err != nil {
		return err
	}
	s.LAN = lan
	for _, m := range cfg.Machines {
		c, err := newContainer(images[m.Release], lan, cfg.Prefix, m.Name)
		if err != nil {
			return err
		}
		s.Machines[m.Name] = c
	}
	return nil
}

// Close ends the machines and removes their disks and the networks.
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
