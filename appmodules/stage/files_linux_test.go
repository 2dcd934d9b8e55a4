package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"duet/appmodules/directory"
	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
	"duet/blockrepl/host"
	"duet/blockrepl/nbd"
)

// TestMain is the process behind a device, too, when it is run as that.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "disk" {
		if err := host.Serve(os.Args[3], os.Args[4], slog.Default()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// hanging is an image whose writes wait while it hangs.
type hanging struct {
	*backing.File
	hang chan struct{} // closed: it does
	end  chan struct{} // closed: it does no more, and they fail
}

func (h *hanging) wait() error {
	select {
	case <-h.hang:
		<-h.end
		return errors.New("the volume is gone")
	default:
		return nil
	}
}

func (h *hanging) WriteAt(p []byte, off int64) (int, error) {
	if err := h.wait(); err != nil {
		return 0, err
	}
	return h.File.WriteAt(p, off)
}

func (h *hanging) Flush() error { return errors.Join(h.wait(), h.File.Flush()) }

// stand is a volume with a file system, and the stage on it.
func stand(t *testing.T) (*Files, *hanging) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root makes loop devices")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("this kernel has no FUSE: ", err)
	}
	dir, err := os.MkdirTemp("", "ds")
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "image")
	file, err := backing.CreateFile(image, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	apps := filepath.Join(dir, "app")
	err = errors.Join(directory.Make(t.Context(), image, "ext4"),
		directory.Fill(t.Context(), image, filepath.Join(dir, "fill"), []string{apps}))
	if err != nil {
		t.Fatal(err)
	}
	img := &hanging{file, make(chan struct{}), make(chan struct{})}
	sock := filepath.Join(dir, "s")
	srv := nbd.New(nbd.Options{Socket: sock, Name: "files", Log: slog.New(slog.DiscardHandler)})
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	q := blocktest.StartQueue(img, 4)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(q) }()
	f := &Files{Name: "app", Socket: sock, Export: "files", Logger: slog.New(slog.DiscardHandler),
		Devices: &host.Loop{Dir: filepath.Join(dir, "disks"), Program: []string{os.Args[0], "disk"}},
		Tree:    directory.Tree{FileSystem: "ext4", At: filepath.Join(dir, "mount"), Directories: []string{apps}}}
	t.Cleanup(func() {
		select {
		case <-img.end:
		default:
			close(img.end)
		}
		if err := f.Kill(within(t, 10*time.Second)); err != nil {
			t.Error(err)
		}
		if err := errors.Join(q.Close(), srv.Close(), <-served, file.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return f, img
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// stands fails unless the stage is as it should be.
func (f *Files) stands(t *testing.T, up, whole bool) {
	t.Helper()
	if is, all, err := f.Up(t.Context()); is != up || all != whole || err != nil {
		t.Fatalf("up %v, whole %v, %v", is, all, err)
	}
}

// user is a process that writes a file of the directory again and again.
func user(t *testing.T, f *Files) *exec.Cmd {
	t.Helper()
	path := filepath.Join(f.Tree.Directories[0], "file")
	cmd := exec.Command("/bin/sh", "-c", `exec 3>>"$0"; echo opened; while echo line >&3 && sync "$0"; do :; done`, path)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// TestStopWithAUser: a process that uses the directories when they are stopped is ended, and what it wrote is there the
// next time.
func TestStopWithAUser(t *testing.T) {
	f, _ := stand(t)
	f.stands(t, false, false)
	for range 2 {
		if err := f.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.stands(t, true, true)
	user(t, f)
	if err := f.Stop(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	f.stands(t, false, false)
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(f.Tree.Directories[0], "file")); err != nil || info.Size() == 0 {
		t.Errorf("what was written is gone: %v", err)
	}
}

// TestKillWhileTheVolumeHangs: the right to write is lost, and with it the volume: it answers nothing any more while a
// process writes and has much to be written out. All is ended at once, and nothing waits for the volume.
func TestKillWhileTheVolumeHangs(t *testing.T) {
	f, img := stand(t)
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	writer := user(t, f)
	close(img.hang)
	if err := os.WriteFile(filepath.Join(f.Tree.Directories[0], "dirty"), make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := f.Kill(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Logf("it took %s", time.Since(began).Round(time.Millisecond))
	f.stands(t, false, false)
	_ = writer.Wait() // it was ended, or an error of its file has ended it
}
