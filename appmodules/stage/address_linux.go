package stage

import (
	"context"
	"net/netip"

	"duet/lb/vip"
)

// Address is a virtual address.
type Address struct{ Prefix netip.Prefix }

// Label is the address.
func (a Address) Label() string { return "address " + a.Prefix.Addr().String() }

// Up: an interface of this host has it.
func (a Address) Up(context.Context) (up, whole bool, err error) {
	on, err := vip.Held(a.Prefix.Addr())
	return on != "", on != "", err
}

// Start takes it.
func (a Address) Start(context.Context) error { return vip.Take(a.Prefix) }

// Stop drops it.
func (a Address) Stop(context.Context) error { return vip.Drop(a.Prefix.Addr()) }

// Kill drops it.
func (a Address) Kill(context.Context) error { return vip.Drop(a.Prefix.Addr()) }
