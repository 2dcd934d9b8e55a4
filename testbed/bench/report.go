package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// results are the measurements, as they are saved.
type results struct {
	Started time.Time                       `json:"started"`
	Rounds  int                             `json:"rounds"`
	Seconds int                             `json:"seconds"`
	Size    int64                           `json:"image_bytes"`
	Fill    int64                           `json:"fill_bytes"`
	Runs    map[string]map[string][]float64 `json:"runs"` // job, setup, in order of rounds
	Ratios  []ratio                         `json:"ratios"`
}

// ratio is one target and how it was met. Of and To are setups; Got is the ratio of their medians.
type ratio struct {
	What   string  `json:"what"`
	Job    string  `json:"job"`
	Of     string  `json:"of"`
	To     string  `json:"to"`
	Target float64 `json:"target"` // at least this; 0: it is only shown
	Got    float64 `json:"got"`
	Met    bool    `json:"met"`
}

// targets are the project's. A limit on latency at queue depth 1 is one on the inverse of the rate. They are
// ratios of one run on one computer: absolute figures depend on it too much.
var targets = [...]ratio{
	{What: "QD32 write, replicated ÷ QEMU mirror", Job: "write-qd32", Of: "replicated-tls", To: "mirror", Target: 4},
	{What: "QD32 write, replicated ÷ qemu-nbd unreplicated", Job: "write-qd32", Of: "replicated-tls", To: "qemu-nbd",
		Target: 1},
	{What: "QD1 write, replicated ÷ QEMU mirror", Job: "write-qd1", Of: "replicated-tls", To: "mirror", Target: 1.3},
	{What: "QD1 write, replicated ÷ ours alone (latency at most double)", Job: "write-qd1", Of: "replicated-tls",
		To: "alone", Target: 0.5},
	{What: "1 MiB sequential write, replicated ÷ QEMU mirror", Job: "seq-1m", Of: "replicated-tls", To: "mirror",
		Target: 2},
	{What: "QD32 read, replicated ÷ qemu-nbd", Job: "read-qd32", Of: "replicated-tls", To: "qemu-nbd", Target: 2},
	{What: "QD1 write, replicated with CPUs left to sleep ÷ QEMU mirror", Job: "write-qd1", Of: "sleepy", To: "mirror"},
	{What: "QD32 write, TLS ÷ no TLS", Job: "write-qd32", Of: "replicated-tls", To: "replicated", Target: 0.8},
	{What: "QD32 write, replicated without TLS ÷ QEMU mirror", Job: "write-qd32", Of: "replicated", To: "mirror",
		Target: 4},
	{What: "QD32 write, replicated without TLS ÷ qemu-nbd unreplicated", Job: "write-qd32", Of: "replicated",
		To: "qemu-nbd", Target: 1},
	{What: "QD1 write, replicated without TLS ÷ QEMU mirror", Job: "write-qd1", Of: "replicated", To: "mirror",
		Target: 1.3},
	{What: "1 MiB sequential write, replicated without TLS ÷ QEMU mirror", Job: "seq-1m", Of: "replicated", To: "mirror",
		Target: 2},
}

func (r *results) add(job, setup string, v float64) {
	if r.Runs[job] == nil {
		r.Runs[job] = make(map[string][]float64)
	}
	r.Runs[job][setup] = append(r.Runs[job][setup], v)
}

func (r *results) median(job, setup string) float64 { return median(r.Runs[job][setup]) }

// median of no values is 0.
func median(vs []float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(vs))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// judge compares the medians with the targets; what was not measured is left out. A target without a floor is
// met by every ratio.
func (r *results) judge() (met bool) {
	met, r.Ratios = true, nil
	for _, t := range targets {
		of, to := r.median(t.Job, t.Of), r.median(t.Job, t.To)
		if of == 0 || to == 0 {
			continue
		}
		t.Got = of / to
		t.Met = t.Got >= t.Target
		met = met && t.Met
		r.Ratios = append(r.Ratios, t)
	}
	return met
}

// print writes both tables and reports whether every measured target is met.
func (r *results) print(w io.Writer) (met bool) {
	met = r.judge()
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(tab, "median\t")
	for _, s := range setups {
		fmt.Fprintf(tab, "%s\t", s.name)
	}
	fmt.Fprintln(tab)
	for _, j := range jobs {
		if r.Runs[j.Name] == nil {
			continue
		}
		fmt.Fprintf(tab, "%s %s\t", j.Name, j.Unit)
		for _, s := range setups {
			fmt.Fprintf(tab, "%.0f\t", r.median(j.Name, s.name))
		}
		fmt.Fprintln(tab)
	}
	fmt.Fprintln(tab, "\ntarget\tat least\tgot\t")
	for _, t := range r.Ratios {
		verdict, target := "met", fmt.Sprintf("%.2f", t.Target)
		switch {
		case t.Target == 0:
			verdict, target = "", ""
		case !t.Met:
			verdict = "MISSED"
		}
		fmt.Fprintf(tab, "%s\t%s\t%.2f\t%s\n", t.What, target, t.Got, verdict)
	}
	tab.Flush()
	return met
}
