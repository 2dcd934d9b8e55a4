package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
)

// job is one load of fio. Unit and rate are of the direction that counts; args are fio's.
type job struct {
	Name string // for -jobs and the tables
	Unit string // of rate
	args []string
	rate func(fioSide) float64 // what counts
	read bool                  // rate is of fio's reads, not of its writes
}

// jobs in the order they run. Reads come last, from a full page cache. Each runs over the whole image. A job
// leaves the page cache to the next one as it is, so the order is part of what is measured.
var jobs = [...]job{
	{"write-qd1", "IOPS", []string{"--rw=randwrite", "--bs=4k", "--iodepth=1"}, iops, false},
	{"write-qd32", "IOPS", []string{"--rw=randwrite", "--bs=4k", "--iodepth=32"}, iops, false},
	{"seq-1m", "MiB/s", []string{"--rw=write", "--bs=1m", "--iodepth=4"}, mibps, false},
	// --fsync is the nbd engine's only flush
	{"write-flush", "IOPS", []string{"--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"}, iops, false},
	{"read-qd32", "IOPS", []string{"--rw=randread", "--bs=4k", "--iodepth=32"}, iops, true},
}

// fioSide is one direction of a job in fio's JSON.
type fioSide struct {
	IOPS float64 `json:"iops"`     // mean of the run
	BW   float64 `json:"bw_bytes"` // bytes per second
}

func iops(s fioSide) float64  { return s.IOPS }
func mibps(s fioSide) float64 { return s.BW / (1 << 20) }

// run measures the job once on s. It blocks for o.seconds and fio's start. fio is killed when ctx ends. A
// request that fails is an error of the job.
func (j job) run(ctx context.Context, s setup, o options) (float64, error) {
	args := append([]string{"--name=" + j.Name, "--ioengine=nbd", "--uri=nbd+unix:///" + exportName +
		"?socket=" + s.socket,
		"--size=" + strconv.FormatInt(o.size, 10), "--time_based", "--runtime=" + strconv.Itoa(o.seconds),
		"--randrepeat=0", "--norandommap", "--output-format=json"}, j.args...)
	cmd := exec.CommandContext(ctx, "fio", args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = s.dir, &stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("fio: %w: %s%s", err, out, &stderr)
	}
	// fio puts the engine's notes before its JSON.
	if at := bytes.IndexByte(out, '{'); at > 0 {
		out = out[at:]
	}
	var result struct {
		Jobs []struct {
			Error       int
			Read, Write fioSide
		}
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return 0, fmt.Errorf("read fio's result: %w", err)
	}
	if len(result.Jobs) != 1 || result.Jobs[0].Error != 0 {
		return 0, fmt.Errorf("fio failed: %s", out)
	}
	if j.read {
		return j.rate(result.Jobs[0].Read), nil
	}
	return j.rate(result.Jobs[0].Write), nil
}
