//go:build linux

package guest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"duet/testbed/guest/record"
)

// TestBare: the small guest writes what package record reads, says what is on the disk as that does, goes on after it,
// and switches itself off when its power button is pressed.
func TestBare(t *testing.T) {
	for _, tool := range []string{"gcc", "qemu-system-x86_64"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: `make deps` installs it", tool)
		}
	}
	files, err := BuildBare(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := bareVM{t, files.Kernel, filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "console")}
	const slots = 24 // so that the second boot begins anew at the front
	if err := os.WriteFile(b.disk, make([]byte, slots*record.Size), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, spoil := range []func(image []byte){
		func([]byte) {},
		func(image []byte) { clear(image[4*record.Size : 5*record.Size]); image[9*record.Size+2000] ^= 1 },
		func(image []byte) {
			record.Encode(image[2*record.Size:3*record.Size], record.Record{Number: record2(t, image, slots), Prev: 1})
		},
	} {
		image := b.image()
		spoil(image)
		if err := os.WriteFile(b.disk, image, 0o644); err != nil {
			t.Fatal(err)
		}
		before := b.scan()
		boot := b.run(20)
		if boot.Slots != slots || boot.Last != before.Last || boot.Holes != uint64(len(before.Holes)) ||
			boot.Torn != uint64(len(before.Torn)) || boot.Breaks != uint64(len(before.Breaks)) || len(boot.Errors) != 0 {
			t.Errorf("the guest says %+v, on the disk is %+v", boot, before)
		}
		after := b.scan()
		last := boot.Acks[len(boot.Acks)-1]
		if after.Last != last || boot.Acks[0] != before.Last+1 || boot.Flushes[len(boot.Flushes)-1] != last || !boot.Off {
			t.Errorf("it wrote %d to %d after %d, flushed %v; on the disk the last is %d; off in order: %v",
				boot.Acks[0], last, before.Last, boot.Flushes, after.Last, boot.Off)
		}
		if rec, _ := after.Get(last); rec.Boot.String() != boot.ID {
			t.Errorf("record %d is of boot %s, it says %s", last, rec.Boot, boot.ID)
		}
	}
	if log := b.log(); len(log.Boots) != 3 || log.Boots[0].ID == log.Boots[1].ID || log.Boots[1].ID == log.Boots[2].ID {
		t.Errorf("boots: %+v", log.Boots)
	}
}

// record2 is the number of the record in slot 2.
func record2(t *testing.T, image []byte, slots int) uint64 {
	t.Helper()
	rec, err := record.Decode(image[2*record.Size:])
	if err != nil || record.Slot(rec.Number, uint64(slots)) != 2 {
		t.Fatalf("in slot 2 is %+v, %v", rec, err)
	}
	return rec.Number
}

// bareVM is a VM of the small guest, without libvirt.
type bareVM struct {
	*testing.T
	kernel, disk, console string
}

func (b bareVM) image() []byte {
	b.Helper()
	image, err := os.ReadFile(b.disk)
	if err != nil {
		b.Fatal(err)
	}
	return image
}

func (b bareVM) scan() *record.Image {
	b.Helper()
	f, err := os.Open(b.disk)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	im, err := record.Scan(f, int64(len(b.image())))
	if err != nil {
		b.Fatal(err)
	}
	return im
}

func (b bareVM) log() Log {
	b.Helper()
	f, err := os.Open(b.console)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	log, err := ParseConsole(f)
	if err != nil {
		b.Fatal(err)
	}
	return log
}

// run boots the VM, presses its power button after n records, and returns what it said.
func (b bareVM) run(n int) Boot {
	b.Helper()
	boots := 0
	if _, err := os.Stat(b.console); err == nil {
		boots = len(b.log().Boots)
	}
	args := []string{"-machine", "pc,accel=tcg", "-cpu", "qemu64", "-m", "32", "-nodefaults", "-display", "none",
		"-qmp", "stdio",
		"-kernel", b.kernel, "-append", Domain{Rate: 40, Flush: 7}.Cmdline(), "-drive", "if=virtio,format=raw,file=" + b.disk,
		"-chardev", "file,id=console,append=on,path=" + b.console, "-serial", "chardev:console"}
	qemu := exec.CommandContext(b.Context(), "qemu-system-x86_64", args...)
	monitor, err := qemu.StdinPipe()
	if err == nil {
		qemu.Stdout, qemu.Stderr = io.Discard, os.Stderr
		err = qemu.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- qemu.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	pressed := false
	for limit := time.After(time.Minute); ; {
		select {
		case err := <-ended:
			if log := b.log(); err != nil || len(log.Boots) != boots+1 || !pressed {
				b.Fatalf("QEMU ended: %v; %+v", err, log.Newest())
			}
			return b.log().Newest()
		case <-tick.C:
		case <-limit:
			_ = qemu.Process.Kill() // the test fails anyway
			b.Fatalf("it does not switch itself off: %+v", b.log().Newest())
		}
		if _, err := os.Stat(b.console); err != nil || pressed {
			continue
		}
		if log := b.log(); len(log.Boots) == boots+1 && len(log.Newest().Acks) >= n {
			fmt.Fprintln(monitor, `{"execute":"qmp_capabilities"}{"execute":"system_powerdown"}`)
			pressed = true
		}
	}
}
