package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"duet/testbed/lab"
)

// show prints the story and keeps what the summary repeats.
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

// keep leaves the cluster up and tells how to play with it.
func (s *show) keep(ctx context.Context, l *lab.Lab) {
	fmt.Println("\nThe cluster stays up until ctrl-C. In another terminal, as root:")
	for _, name := range []string{lab.Alpha, lab.Beta} {
		if path, err := l.Hosts[name].Node.Outside("/"); err == nil {
			var pid int
			if _, err := fmt.Sscanf(path, "/proc/%d/root", &pid); err == nil {
				fmt.Printf("  %s() { nsenter -t %d -a %s \"$@\"; }\n", name, pid, "env PATH="+l.Bin()+":$PATH")
			}
		}
	}
	fmt.Println("  alpha duet status --watch")
	fmt.Println("  alpha duet swap web01        beta duet log web01        alpha duet volume verify web01/vda")
	fmt.Println("  alpha virsh list             beta pkill -9 duetd        (a host's processes only)")
	fmt.Fprintln(os.Stdout)
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
