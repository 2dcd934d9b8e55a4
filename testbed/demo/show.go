package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"duet/testbed/testcluster"
)

// show prints the story and keeps what the summary repeats. It is for one goroutine, and prints as it goes.
type show struct {
	began time.Time
	step  int
	notes [][2]string
}

func (s *show) title(text string) {
	s.step++
	fmt.Printf("\n%d. %s\n", s.step, text)
}

func (s *show) done(format string, args ...any) {
	fmt.Printf("   ✓ %s  (%.1f s)\n", fmt.Sprintf(format, args...), time.Since(s.began).Seconds())
}

func (s *show) line(format string, args ...any) { fmt.Printf(" "+format+"\n", args...) }

// note is a line of the summary.
func (s *show) note(what, format string, args ...any) {
	s.notes = append(s.notes, [2]string{what, fmt.Sprintf(format, args...)})
}

func (s *show) summary() {
	fmt.Println("\nSummary")
	for _, n := range s.notes {
		fmt.Printf("  %-46s %s\n", n[0], n[1])
	}
}

// keep leaves the cluster up and tells how to play with it. It returns at the end of ctx, with no goroutine
// left. The daemons are kept alive, so that one that a visitor kills comes back; one that he stops stays away.
func (s *show) keep(ctx context.Context, l *testcluster.Cluster) {
	d := desk{cluster: l, on: map[string]func(){}}
	defer d.close()
	for _, h := range l.Hosts {
		if h.Duetd() != nil { // the demo may have failed before it started one
			d.serve(ctx, h)
		}
	}
	fmt.Println("\nThe cluster stays up until ctrl-C. In another terminal, as root, in this directory:")
	for _, name := range []string{testcluster.Alpha, testcluster.Beta} {
		remove, err := door(l, name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			continue
		}
		defer remove()
	}
	asked := ""
	if len(d.on) > 0 {
		dir, remove, err := d.install(l.Bin())
		if err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
		} else {
			asked = dir
			defer remove()
		}
	}
	fmt.Println("  bin/alpha duet status --watch")
	fmt.Println("  bin/alpha duet swap web01        bin/beta duet log web01        bin/alpha duet volume verify web01/vda")
	fmt.Println("  bin/alpha virsh list             bin/beta pkill -9 duetd        (a host's processes only)")
	fmt.Println("  bin/alpha systemctl stop duetd   bin/alpha systemctl start duetd  (also restart)")
	fmt.Println("  bin/alpha pkill -n -STOP duetd   bin/alpha pkill -n -CONT duetd   (the daemon stands still, goes on)")
	fmt.Println("  bin/beta                         (a shell on that host)")
	if asked != "" {
		fmt.Println("  bin/hosts kill alpha             bin/hosts boot alpha             (its power)")
		fmt.Println("  bin/hosts cut                    bin/hosts heal                   (the network between the hosts)")
		fmt.Println("  bin/hosts witness                (starts one and adds it)")
	}
	fmt.Fprintln(os.Stdout)
	if asked != "" {
		d.run(ctx, asked)
	}
	<-ctx.Done()
}

func bytes(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
