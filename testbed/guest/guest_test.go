package guest

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseConsole(t *testing.T) {
	const id1, id2 = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"
	tests := []struct {
		name, text string
		want       []Boot
	}{
		{name: "nothing"},
		{name: "noise", text: "SeaBIOS\r\n[    0.1] Linux\r\nDUET ack 5\r\n"},
		{
			name: "two boots, the first cut short in a number",
			text: "--\r\nDUET boot " + id1 +
				" slots=2048\r\nDUET scan last=0 holes=0 torn=0 breaks=0\r\nDUET ack 1\r\nDUET ack 2\r\n" +
				"DUET flush 2\r\nDUET ack 1--\r\nDUET boot " + id2 + " slots=2048\r\nDUET scan last=3 holes=1 torn=2 breaks=4\r\n" +
				"DUET ack 4\r\nDUET error write 5: input/output error\r\nDUET poweroff\r\n",
			want: []Boot{
				{ID: id1, Slots: 2048, Scanned: true, Acks: []uint64{1, 2}, Flushes: []uint64{2}},
				{ID: id2, Slots: 2048, Scanned: true, Last: 3, Holes: 1, Torn: 2, Breaks: 4, Acks: []uint64{4},
					Errors: []string{"write 5: input/output error"}, Off: true},
			},
		},
		{
			name: "the end of the file is no end of a line",
			text: "DUET boot " + id1 + " slots=8\nDUET ack 1\nDUET ack 2",
			want: []Boot{{ID: id1, Slots: 8, Acks: []uint64{1}}},
		},
		{
			name: "a kernel message in a line",
			text: "DUET boot " + id1 +
				" slots=8\nDUET ack 1[ 3.1] oops\n2\nDUET scan last=7 ho[ 3.1] oops\nDUET flush -1\nDUET boot x slots=8\n",
			want: []Boot{{ID: id1, Slots: 8}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseConsole(strings.NewReader(tt.text))
			if err != nil || !reflect.DeepEqual(got.Boots, tt.want) {
				t.Errorf("got %+v, %v", got.Boots, err)
			}
		})
	}
	if _, err := ParseConsole(iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read error: %v", err)
	}
	var none Log
	if none.Acked() != 0 || none.Newest().ID != "" {
		t.Error("an empty log says something")
	}
}

func FuzzParseConsole(f *testing.F) {
	f.Add("DUET boot 00112233445566778899aabbccddeeff slots=8\nDUET scan last=7 holes=0 torn=0 breaks=0\nDUET ack 8\n")
	f.Fuzz(func(t *testing.T, text string) {
		whole, err := ParseConsole(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		// What a sudden end cuts off may be missing, but nothing else may come of it.
		cut, _ := ParseConsole(strings.NewReader(text[:len(text)/2]))
		if len(cut.Boots) > len(whole.Boots) || cut.Acked() > whole.Acked() {
			t.Errorf("half the console says more than all of it: %+v, %+v", cut, whole)
		}
	})
}

var update = flag.Bool("update", false, "rewrite the golden files")

func TestDomain(t *testing.T) {
	files := Files{Kernel: "/k", Initrd: "/i"}
	tests := map[string]Domain{
		"plain": {Name: "one", Files: files, Console: "/c", Disks: []Disk{{File: "/d"}}},
		"full": {Name: "a&b", UUID: "7b8f0b1c-0000-4000-8000-000000000001", Files: files, Console: "/c'", MemoryMiB: 96,
			Mode: "panic-after=5", Rate: -1,
			Flush: 3, OnCrash: "destroy", Disks: []Disk{{Socket: "/s", Export: "vda"}, {Block: "/dev/loop0"}}},
	}
	for name, d := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := d.XML()
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".xml")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got != string(want) {
				t.Errorf("%v, got\n%s", err, got)
			}
		})
	}
	for name, d := range map[string]Domain{
		"no disk":        {Name: "one", Console: "/c"},
		"no console":     {Name: "one", Disks: []Disk{{File: "/d"}}},
		"two kinds":      {Name: "one", Console: "/c", Disks: []Disk{{File: "/d", Socket: "/s"}}},
		"no source":      {Name: "one", Console: "/c", Disks: []Disk{{Export: "e"}}},
		"too many disks": {Name: "one", Console: "/c", Disks: make([]Disk, 9)},
	} {
		if _, err := d.XML(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestClosure(t *testing.T) {
	tree := &kernelTree{
		files:   map[string]string{"a": "x/a.ko", "b_c": "x/b-c.ko.xz", "d": "x/d.ko", "odd": "x/odd.ko"},
		builtin: map[string]bool{"core": true},
	}
	depends := func(file string) ([]string, error) {
		return map[string][]string{"x/a.ko": {"b-c", "d", "core"}, "x/b-c.ko.xz": {"d"}, "x/odd.ko": {"nowhere"}}[file], nil
	}
	got, err := tree.closure([]string{"core", "a", "d"}, depends)
	if want := []string{"x/d.ko", "x/b-c.ko.xz", "x/a.ko"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := tree.closure([]string{"odd"}, depends); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing module: %v", err)
	}
}

func TestArchive(t *testing.T) {
	var b bytes.Buffer
	a := &archive{w: &b}
	a.dir("dev")
	a.file("init", modeExec, []byte("hello"))
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	for at, rest := 0, b.String(); ; { // every entry begins on a multiple of 4
		i := strings.Index(rest, "070701")
		if i < 0 {
			break
		}
		if at += i; at%4 != 0 {
			t.Errorf("entry at %d", at)
		}
		rest, at = rest[i+6:], at+6
	}
	full := &archive{w: iotestWriter{}}
	full.file("init", modeFile, []byte("x"))
	if err := full.close(); err == nil {
		t.Error("a full disk is no error")
	}
}

type iotestWriter struct{}

func (iotestWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestKernelPackage(t *testing.T) {
	got := kernelPackage("linux-image-cloud-amd64\n" +
		"  Depends: linux-image-6.1.0-56-cloud-amd64\n  Conflicts: linux-image-x\n")
	if got != "linux-image-6.1.0-56-cloud-amd64" {
		t.Errorf("got %q", got)
	}
	if got := kernelPackage("N: Unable to locate package\n"); got != "" {
		t.Errorf("got %q", got)
	}
}
