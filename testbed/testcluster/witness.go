package testcluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"duet/testbed/proc"
)

// witnessPort is where the witness serves.
const witnessPort = "7425"

// StartWitness starts the witness on its own computer, or again after KillWitness. One that runs is left alone.
// It finds the votes that it gave before: they lie in the cluster's folder. It answers when it returns, but
// votes only after AddWitness.
func (l *Cluster) StartWitness(ctx context.Context) error {
	if l.witness != nil {
		select {
		case <-l.witness.Done():
		default:
			return nil
		}
	}
	if l.third == nil {
		l.third = proc.New(proc.Config{Name: Witness, NetNS: l.LAN.Path(Witness), Hosts: l.LAN.Hosts()})
	}
	if err := l.third.Boot(); err != nil { // one that runs is left alone
		return err
	}
	dir := l.witnessDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory of the witness: %w", err)
	}
	var err error
	l.witness, err = l.third.Start(proc.Spec{Path: filepath.Join(l.cfg.Bin, "duetd"),
		Args: []string{"witness", "--dir", dir, "--listen", ":" + witnessPort}, Output: filepath.Join(dir, "log")})
	if err != nil {
		return err
	}
	return Until(ctx, "the witness answers", func() error {
		_, err := l.runWitness(ctx, "list")
		return err
	})
}

func (l *Cluster) witnessDir() string { return filepath.Join(l.cfg.Dir, Witness) }

func (l *Cluster) runWitness(ctx context.Context, verb string) (string, error) {
	out, err := l.third.Run(ctx, filepath.Join(l.cfg.Bin, "duetd"), "witness", verb, "--dir", l.witnessDir())
	return string(out), err
}

// KillWitness ends it by SIGKILL. It must have been started. Its memory is durable, so it comes back as the same
// voter.
func (l *Cluster) KillWitness(ctx context.Context) error {
	if err := l.witness.Kill(); err != nil {
		return err
	}
	_, err := l.witness.Wait(ctx)
	return err
}

// AddWitness makes it the third voter of the cluster. It is done on alpha, whose duetd must run.
func (l *Cluster) AddWitness(ctx context.Context) error {
	said, err := l.runWitness(ctx, "token")
	if err != nil {
		return err
	}
	token, _, _ := strings.Cut(said, "\n")
	_, err = l.Hosts[Alpha].Duet(ctx, "cluster", "witness", "add", l.LAN.Addr(Witness, Front).String()+":"+witnessPort,
		"--token", token)
	return err
}
