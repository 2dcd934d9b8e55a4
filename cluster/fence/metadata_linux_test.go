package fence

import (
	"strings"
	"testing"
)

func TestInspect(t *testing.T) {
	for name, c := range map[string]struct {
		actions string
		options Options
		want    string // part of the error; empty is none
	}{
		"good":       {power, Options{"username": "duet"}, ""},
		"older name": {power, Options{"login": "duet"}, ""},
		"all": {power, Options{"username": "duet", "ipport": "1", "ssl": "0", "ssl_insecure": "1",
			"method": "cycle", "power_wait": "5"}, ""},
		"missing": {power, Options{}, `option "username" is missing`},
		"unknown": {power, Options{"username": "duet", "pasword": "hunter2"},
			`option "pasword": fence_x does not know it`},
		"not a number":  {power, Options{"username": "duet", "power_wait": "5s"}, "whole number"},
		"not a boolean": {power, Options{"username": "duet", "ssl": "ja"}, "must be 1, or 0"},
		"no means yes":  {power, Options{"username": "duet", "ssl_insecure": "0"}, "leave it out to say no"},
		"not a choice":  {power, Options{"username": "duet", "method": "soft"}, "onoff, cycle"},
		"no status": {`<action name="on" automatic="0"/><action name="off" />`, Options{"username": "duet"},
			"cannot switch off and ask"},
		"no off": {`<action name="status" />`, Options{"username": "duet"}, "cannot switch off and ask"},
		"storage fencing": {`<action name="on" automatic="1"/><action name="off" /><action name="status" />`,
			Options{"username": "duet"}, "leaves it running"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			d := s.agent("x", "cat <<'X'\n"+strings.Replace(described, "ACTIONS", c.actions,
				1)+"X\necho \"$options\" > $dir/options")
			d.Options = c.options
			err := s.Inspect(t.Context(), d)
			if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), `"login"`)) {
				t.Errorf("shows too much: %v", err)
			}
			if got := s.read("options"); got != "action=metadata" {
				t.Errorf("the agent was given %s", got)
			}
		})
	}
}

func TestInspectBroken(t *testing.T) {
	for name, script := range map[string]string{"not XML": "echo hello", "fails": "echo no such module >&2; exit 1",
		"endless": "yes '<a>' | head -c 3000000"} {
		s := newShop(t)
		if err := s.Inspect(t.Context(), s.agent("x", script)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
