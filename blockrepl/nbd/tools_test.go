package nbd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"duet/blockrepl/backing"
)

// tool runs a real program and returns what it printed; the test is skipped where it is not installed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tryTool(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func tryTool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = t.TempDir() // fio leaves files where it runs
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// qemuIO runs commands of qemu-io; any that fails fails the test.
func qemuIO(t *testing.T, uri string, commands ...string) string {
	t.Helper()
	args := []string{"-f", "raw", "-d", "unmap", "-t", "writeback"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	return tool(t, "qemu-io", append(args, uri)...)
}

func TestNbdinfo(t *testing.T) {
	v, dev := offerFile(t, 64<<20)
	if _, err := dev.WriteAt(make([]byte, 128<<10), 1<<20); err != nil {
		t.Fatal(err)
	}
	var info struct {
		Protocol string
		Exports  []struct {
			Name       string `json:"export-name"`
			Size       int64  `json:"export-size"`
			Multi      bool   `json:"can_multi_conn"`
			Flush      bool   `json:"can_flush"`
			FUA        bool   `json:"can_fua"`
			Trim       bool   `json:"can_trim"`
			Zero       bool   `json:"can_zero"`
			DF         bool   `json:"can_df"`
			ReadOnly   bool   `json:"is_read_only"`
			Min        int    `json:"block_size_minimum"`
			Max        int    `json:"block_size_maximum"`
			Contexts   []string
			Structured bool
		}
	}
	for _, args := range [][]string{
		{"--json", v.uri}, {"--json", "--list", v.uri}, {"--json", "nbd+unix:///?socket=" + v.sock},
	} {
		out := tool(t, "nbdinfo", args...)
		if err := json.Unmarshal([]byte(out), &info); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if len(info.Exports) != 1 {
			t.Fatalf("%d exports: %s", len(info.Exports), out)
		}
		e := info.Exports[0]
		if e.Size != 64<<20 || !e.Multi || !e.Flush || !e.FUA || !e.Trim || !e.Zero || !e.DF || e.ReadOnly ||
			e.Min != 512 || e.Max != 32<<20 || len(e.Contexts) != 1 || e.Contexts[0] != "base:allocation" {
			t.Errorf("nbdinfo %v: %+v\n%s", args, e, out)
		}
	}
	out := tool(t, "nbdinfo", "--map", v.uri)
	want := "0 1048576 3 hole,zero\n1048576 131072 0 data\n1179648 65929216 3 hole,zero\n"
	if got := strings.Join(strings.Fields(out), " "); got != strings.Join(strings.Fields(want), " ") {
		t.Errorf("map:\n%swant:\n%s", out, want)
	}
	if out, err := tryTool(t, "nbdinfo", "nbd+unix:///other?socket="+v.sock); err == nil {
		t.Errorf("an unknown export was found: %s", out)
	}
}

func TestQemuIO(t *testing.T) {
	v, _ := offerFile(t, 256<<20)
	qemuIO(t, v.uri,
		"write -P 0x11 0 1M", "read -P 0x11 0 1M",
		"write -P 0x22 512 512", "read -P 0x11 0 512", "read -P 0x22 512 512", "read -P 0x11 1k 1k",
		"write -f -P 0x33 1M 4k", "read -P 0x33 1M 4k", "flush",
		// unaligned: QEMU does it by block size
		"write -P 0x44 3000001 7777", "read -P 0x44 3000001 7777", "read -P 0 3000000 1",
		"write -z 64k 64k", "read -P 0 64k 64k", "write -z -u 256k 64k", "read -P 0 256k 64k",
		"discard 512k 128k", "read -P 0 512k 128k", "read -P 0x11 384k 128k", "read -P 0x11 640k 128k",
		"write -P 0x55 16M 31M", "read -P 0x55 16M 31M", "write -P 0x56 100M 64M", "read -P 0x56 100M 64M",
		"aio_write -P 1 200M 64k", "aio_write -P 2 201M 64k", "aio_flush", "read -P 1 200M 64k", "read -P 2 201M 64k",
		"write -P 0x66 268431360 4k", "read -P 0x66 268431360 4k",
	)
	if log := v.log.String(); log != "" {
		t.Errorf("log: %s", log)
	}
}

func TestConvertAndCopy(t *testing.T) {
	dir := t.TempDir()
	const size = 96 << 20
	v, _ := offerFile(t, size)
	src := filepath.Join(dir, "src")
	writeRandomSparse(t, src, size)

	tool(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "8", src, v.uri)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", src, v.uri)
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", v.uri, filepath.Join(dir, "back"))
	tool(t, "cmp", src, filepath.Join(dir, "back"))

	w, _ := offerFile(t, size)
	tool(t, "nbdcopy", "--connections=4", "--requests=32", "--flush", v.uri, w.uri)
	tool(t, "nbdcopy", w.uri, filepath.Join(dir, "again"))
	tool(t, "cmp", src, filepath.Join(dir, "again"))
	if out, err := tryTool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", src, w.uri); err != nil {
		t.Errorf("compare: %s", out)
	}
}

func writeRandomSparse(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rand.NewChaCha8([32]byte{1})
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; off += 3 << 20 {
		r.Read(buf)
		if _, err := f.WriteAt(buf, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

func TestFioVerify(t *testing.T) {
	v, _ := offerFile(t, 64<<20)
	for _, job := range [][]string{
		{"--rw=randwrite", "--bs=4k", "--iodepth=32", "--number_ios=4000"},
		{"--rw=randrw", "--bsrange=512-256k", "--bs_unaligned=0", "--blockalign=512", "--iodepth=16",
			"--number_ios=1500", "--fsync=16"},
		{"--rw=write", "--bs=1m", "--iodepth=4"},
	} {
		args := append([]string{"--name=v", "--ioengine=nbd", "--uri=" + v.uri, "--size=64m",
			"--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--randseed=7"}, job...)
		tool(t, "fio", args...)
	}
}

func TestManyConnections(t *testing.T) {
	v, _ := offerFile(t, 64<<20)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			off := []string{"0", "16m", "32m", "48m"}[i]
			out, err := tryTool(t, "fio", "--name=v", "--ioengine=nbd", "--uri="+v.uri, "--offset="+off, "--size=16m",
				"--rw=randwrite", "--bs=4k", "--iodepth=8", "--number_ios=2000",
				"--verify=crc32c", "--verify_fatal=1", "--do_verify=1")
			if err != nil {
				t.Errorf("fio at %s: %v\n%s", off, err, out)
			}
		})
	}
	all.Wait()
}

// A flush through NBD must reach the device: what was flushed survives a power cut, FUA writes too.
func TestFlushReachesDevice(t *testing.T) {
	dev := backing.NewMemory(16 << 20)
	v := offer(t, startQueue(t, dev), nil)
	qemuIO(t, v.uri, "write -P 1 0 64k", "flush", "write -f -P 2 1M 64k")
	dev.PowerCut(nil)
	qemuIO(t, v.uri, "read -P 1 0 64k", "read -P 2 1M 64k")
}

// The same with a client that does not flush on its own: what has FUA survives, what has not is lost.
func TestFUA(t *testing.T) {
	dev := backing.NewMemory(16 << 20)
	v := offer(t, startQueue(t, dev), nil)
	c := dial(t, v.sock, false)
	for i, w := range []struct {
		flags, cmd uint16
		want       byte
	}{{0, 1, 0}, {1, 1, 1}, {0, 1, 0}} {
		dev.PowerCut(nil)
		page := bytes.Repeat([]byte{1}, 4096)
		if _, err := c.request(w.flags, w.cmd, uint64(i)*4096, 4096, page); err != nil {
			t.Fatal(err)
		}
		if a, err := c.answer(0); err != nil || a.code != 0 {
			t.Fatalf("write %d: %+v, %v", i, a, err)
		}
		dev.PowerCut(nil)
		if _, err := c.ReadAt(page, int64(i)*4096); err != nil || page[0] != w.want {
			t.Errorf("write %d: found %d after the power cut, want %d (%v)", i, page[0], w.want, err)
		}
	}
}
