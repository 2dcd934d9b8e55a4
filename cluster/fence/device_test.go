package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func good() Device {
	return Device{Name: "alpha-bmc", Agent: "fence_ipmilan",
		Options: Options{"ip": "10.0.9.1", "username": "duet", "password": "hunter2"}}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Device)
		want   string // part of the error; empty is none
	}{
		"good":           {func(*Device) {}, ""},
		"no name":        {func(d *Device) { d.Name = "" }, "name"},
		"name with path": {func(d *Device) { d.Name = "../x" }, "name"},
		"agent's folder": {func(d *Device) { d.Agent = "/usr/sbin/fence_ipmilan" }, "without its folder"},
		"not an agent":   {func(d *Device) { d.Agent = "reboot" }, "without its folder"},
		"agent climbs":   {func(d *Device) { d.Agent = "fence_../../bin/sh" }, "without its folder"},
		"action":         {func(d *Device) { d.Options["action"] = "on" }, "leave it out"},
		"verbose":        {func(d *Device) { d.Options["verbose"] = "1" }, "print passwords"},
		"dashes":         {func(d *Device) { d.Options["systems-uri"] = "x" }, "underscores"},
		"equals":         {func(d *Device) { d.Options["a=b"] = "x" }, "underscores"},
		"blank":          {func(d *Device) { d.Options["plug"] = "  " }, "no value"},
		"empty":          {func(d *Device) { d.Options["plug"] = "" }, "no value"},
		"two lines":      {func(d *Device) { d.Options["plug"] = "1\naction=on" }, "one line"},
		"shown value":    {func(d *Device) { d.Options["password"] = mask }, "give the value itself"},
		"too long":       {func(d *Device) { d.Options["plug"] = strings.Repeat("x", maxValue+1) }, "more than"},
		"short timeout":  {func(d *Device) { d.Timeout = time.Millisecond }, "timeout"},
		"long timeout":   {func(d *Device) { d.Timeout = time.Hour }, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			d := good()
			c.change(&d)
			err := d.Validate()
			if (err == nil) != (c.want == "") || (err != nil &&
				(!strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrConfig))) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the password is in %v", err)
			}
		})
	}
}

func TestValidateLevels(t *testing.T) {
	other := good()
	other.Name = "pdu"
	for name, c := range map[string]struct {
		levels Levels
		ok     bool
	}{
		"one":         {Levels{{good()}}, true},
		"two":         {Levels{{good()}, {other}}, true},
		"none":        {nil, false},
		"empty level": {Levels{{}}, false},
		"same name":   {Levels{{good()}, {good()}}, false},
		"too many":    {make(Levels, maxLevels+1), false},
	} {
		if err := c.levels.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSecrets: no way of writing a device shows its password, a misspelled one included; only Encode does.
func TestSecrets(t *testing.T) {
	d := good()
	d.Options["pasword"] = "hunter3"
	levels := Levels{{d}}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "device", d, "options", d.Options, "levels", levels)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "device", d, "options", d.Options, "levels", levels)
	js, err := json.Marshal(map[string]any{"levels": levels, "pointer": &d})
	if err != nil {
		t.Fatal(err)
	}
	yaml, _ := d.Options.MarshalYAML()
	texts := []string{log.String(), string(js), fmt.Sprint(yaml)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
		texts = append(texts, fmt.Sprintf(verb, d), fmt.Sprintf(verb, &d), fmt.Sprintf(verb, levels),
			fmt.Sprintf(verb, d.Options))
	}
	for _, s := range texts {
		for _, secret := range []string{"hunter", "68756e746572"} {
			if strings.Contains(s, secret) {
				t.Errorf("a password is shown: %s", s)
			}
		}
	}
	if !strings.Contains(string(js), "10.0.9.1") {
		t.Errorf("the address is no secret: %s", js)
	}
	stored, err := Encode(levels)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := Decode(stored); err != nil || !reflect.DeepEqual(back, levels) {
		t.Errorf("stored %s, read %v, %v", stored, back, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`[[{"name":"a","agent":"fence_dummy","options":{"type":"file"}}]]`,
		`[[{"name":"a","agent":"fence_dummy","colour":"red"}]]`,
		`[[{"name":"a","agent":"fence_dummy","options":{"password":" \" "},"timeout":5000000000}]] `, `[[]]`, `[[{}]]x`,
		`null`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := Decode(text)
		if err != nil {
			return
		}
		stored, err := Encode(l)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Decode(stored); err != nil || fmt.Sprint(again) != fmt.Sprint(l) {
			t.Errorf("%s became %s: %v", text, stored, err)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	for _, s := range []string{`[[{"name":"a","agent":"fence_dummy","colour":"red"}]]`,
		`[[{"name":"a","agent":"fence_dummy"}]] 1`, `{}`, `null`, ``,
		`[[{"name":"a","agent":"fence_dummy","options":{"password":"***"}}]]`} {
		if l, err := Decode([]byte(s)); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v, %v", s, l, err)
		}
	}
}

// TestSecrets: what is hidden is listed, and nothing else.
func TestSecretsAreListed(t *testing.T) {
	l := Levels{{good()}, {good()}}
	if got := l.Secrets(); !slices.Equal(got, []string{"hunter2", "hunter2"}) {
		t.Errorf("%q", got)
	}
}
