package apitest

import (
	"archive/zip"
	"bytes"
	"context"
	"io"
	"strings"

	"duet/console/api"
)

// Findings are one of each level.
func Findings() api.Doctor {
	return api.Doctor{Node: "alpha", Findings: []api.Finding{
		{Node: "alpha", Level: "ok", About: "libvirt", Fact: "libvirt 9.0.0 with QEMU 7.2.15"},
		{Node: "alpha", Level: "note", About: "watchdog", Fact: "no watchdog: nothing resets this host if duetd hangs"},
		{Node: "beta", Level: "problem", About: "network", Fact: "does not reach TCP 7421 of alpha on hb1 (10.0.0.1)",
			Remedy: "in the firewall of alpha: `ufw allow 7421/tcp`"},
		{Level: "warning", About: "arbitration",
			Fact:   "neither witness nor fence device: when a node dies, db waits on the other one",
			Remedy: "`duetd witness` on a third computer"},
	}}
}

// Healthy are findings without a problem.
func Healthy() api.Doctor {
	d := Findings()
	d.Findings = d.Findings[:2]
	return d
}

// Zip is a small answer of Support.
func Zip() []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range []struct{ name, text string }{
		{"left-out.txt", "beta: everything: it does not answer\n"},
		{"alpha/duetd.log", "hello\n"},
		{"alpha/doctor.txt", strings.Repeat("ok\n", 1000)},
	} {
		if e, err := w.Create(f.name); err == nil { // a buffer takes everything
			_, _ = io.WriteString(e, f.text)
		}
	}
	_ = w.Close()
	return b.Bytes()
}

// VMs are those of the sample, one that nobody protects, and a node that does not answer.
func (b *Backend) VMs(context.Context) (api.VMs, error) {
	return api.VMs{VMs: []api.VM{
		{Name: "build", Node: "alpha", Memory: 8 << 30},
		{Name: "postgres", Node: "beta", Running: true, Memory: 16 << 30, Module: "db"},
		{Name: "web01", Node: "alpha", Running: true, Memory: 2 << 30, Module: "web01"},
	}, Missing: []string{"gamma does not answer: its VMs are not listed"}}, b.ask("vms")
}

// Doctor finds Sick.
func (b *Backend) Doctor(context.Context) (api.Doctor, error) { return b.Sick, b.ask("doctor") }

// Support writes Zip.
func (b *Backend) Support(context.Context) (func(io.Writer) error, error) {
	return func(w io.Writer) error {
		_, err := w.Write(b.Zip)
		return err
	}, b.ask("support")
}
