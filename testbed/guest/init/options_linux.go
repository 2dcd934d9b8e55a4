package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// options is what the kernel command line asks of this boot.
type options struct {
	rate  int          // records per second, 0 = as fast as the disk answers
	every uint64       // a flush follows every so many records, 0 = never
	then  string       // what to do after count records: "", "poweroff", "panic"
	count uint64       // records this boot writes before then
	idle  bool         // scan only
	net   netip.Prefix // address of this guest; not valid: it has no network
}

// parseOptions reads duet.mode=, duet.rate=, duet.flush= and duet.net= and ignores every other word. A word of
// ours that cannot be read is an error, or a typing mistake would make a test of something else.
func parseOptions(cmdline string) (options, error) {
	opt := options{rate: 50, every: 10}
	for _, word := range strings.Fields(cmdline) {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "duet.rate":
			opt.rate, err = strconv.Atoi(value)
		case "duet.flush":
			opt.every, err = strconv.ParseUint(value, 10, 32)
		case "duet.net":
			opt.net, err = netip.ParsePrefix(value)
		case "duet.mode":
			err = opt.mode(value)
		}
		if err != nil {
			return opt, fmt.Errorf("parse %s: %w", word, err)
		}
	}
	if opt.rate < 0 || opt.rate > 1e6 {
		return opt, fmt.Errorf("parse duet.rate: %d is out of range", opt.rate)
	}
	return opt, nil
}

// mode reads writer, idle, poweroff-after=N or panic-after=N; N counts the records of this boot.
func (o *options) mode(value string) (err error) {
	name, n, counted := strings.Cut(value, "=")
	switch {
	case name == "writer" && !counted:
		return nil
	case name == "idle" && !counted:
		o.idle = true
		return nil
	case name == "poweroff-after" || name == "panic-after":
		o.then = strings.TrimSuffix(name, "-after")
		o.count, err = strconv.ParseUint(n, 10, 63)
		return err
	}
	return fmt.Errorf("unknown mode %q", value)
}
