package field

import (
	"os"
	"slices"
	"strings"
	"testing"
)

const readme = "../../../README.md"

func TestRead(t *testing.T) {
	const text = "On both: `alpha# no`\n```\nalpha# duet cluster init --addr 10.0.0.1   # one address\n" +
		"beta#  duet cluster join --token duet1.…\n\noutput# \n```\nalpha# not fenced\n  ```\n" +
		"  third# duetd witness &                       # or else\n  ```\n```\nmake test\n```\n"
	blocks, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := [][]Line{
		{{3, "alpha", "duet cluster init --addr 10.0.0.1"}, {4, "beta", "duet cluster join --token duet1.…"}},
		{{10, "third", "duetd witness &"}},
	}
	if !slices.EqualFunc(blocks, want, slices.Equal) {
		t.Errorf("got  %v\nwant %v", blocks, want)
	}
}

func TestFill(t *testing.T) {
	l := Line{Number: 7, Node: "beta", Command: "./duet_…_amd64 join THIRD:1 --token duet1.…"}
	got, err := l.Fill(map[string]string{"duet1.…": "duet1.ABC", "THIRD": "10.0.0.3", "./duet_…_amd64": "./x"})
	if want := "./x join 10.0.0.3:1 --token duet1.ABC"; got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, missing := range []string{"duet1.…", "THIRD"} {
		values := map[string]string{"duet1.…": "x", "THIRD": "y", "./duet_…_amd64": "z"}
		delete(values, missing)
		if got, err := l.Fill(values); err == nil {
			t.Errorf("without %s it is %q", missing, got)
		}
	}
}

// TestReadmeHasWhatTheFieldTestFollows keeps the README and this package together on computers that cannot do the rest.
func TestReadmeHasWhatTheFieldTestFollows(t *testing.T) {
	f, err := os.Open(readme)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blocks, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(blocks...)
	for _, start := range []string{"apt install ", "duet cluster init ", "duet cluster token", "duet cluster join ",
		"duet vm protect ",
		"duet status", "duet cluster witness add "} {
		if !slices.ContainsFunc(all, func(l Line) bool { return strings.HasPrefix(l.Command, start) }) {
			t.Errorf("the README has no command %q behind a prompt", start)
		}
	}
}
