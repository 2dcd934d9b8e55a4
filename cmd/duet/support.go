package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"duet/cluster/support"
	"duet/cmd/duet/setup"
	"duet/console/client"
)

// supportCommand has the daemon gather a zip of all nodes that answer, for two minutes at most, or gathers this
// host's part itself where the daemon does not answer (alone). It then reads the zip again and lists what is in it
// and what was left out and why: an admin is to look before it leaves the house. With --json that list is a bundle.
func (a *app) supportCommand() *cobra.Command {
	var file, dir string
	c := &cobra.Command{
		Use: "support [-o FILE.zip]", Short: "Make one zip of logs and figures of all nodes, to send to who is to help",
		Long: `Make one zip of all nodes that answer, to send to somebody who is to help: logs and
journals, configuration, status, metrics, versions, what doctor says, definitions of the
protected VMs, and what the host tells of itself. Keys, tokens and passwords are taken
out. Where duetd does not run, this host alone is in it. Look into it before you send it.`,
		Args: args(), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			// Whole: whoever reads it may be in another directory, or another root.
			path, err := filepath.Abs(or(file, "duet-support-"+a.now().UTC().Format("20060102-150405")+".zip"))
			if err != nil {
				return err
			}
			if err := a.makeZip(ctx, c, path, dir); err != nil {
				return err
			}
			out, err := readZip(path)
			if err != nil {
				return errors.Join(err, os.Remove(path))
			}
			return a.emit(out, func(w io.Writer) error { return writeBundle(w, out) })
		}),
	}
	c.Flags().StringVarP(&file, "output", "o", "",
		"the zip to make; one that exists is not overwritten (default duet-support-TIME.zip here)")
	c.Flags().StringVar(&dir, "dir", setup.DefaultDir, "directory of the node's state, where duetd does not run")
	return c
}

// makeZip writes the zip, whole or not at all: whatever fails, ctrl-C too, removes the file. Only its owner can
// read it. A file that exists is never touched.
func (a *app) makeZip(ctx context.Context, c *client.Client, path, dir string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists: remove it, or name another file with -o", path)
	}
	if err != nil {
		return fmt.Errorf("make zip: %w", err)
	}
	if err = a.answers(ctx, c); err == nil {
		err = c.Support(ctx, f)
	}
	if a.alone(err) {
		_, err = f.Seek(0, io.SeekStart) // half of it may be there already
		if err == nil {
			err = f.Truncate(0)
		}
		if err == nil {
			err = support.Write(f, a.now(), []support.Part{a.local.Collect(ctx, dir)})
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// bundle is what is in a zip and what is not. Left says so in a sentence each, as the nodes did.
type bundle struct {
	File  string       `json:"file"`
	Size  int64        `json:"size"` // bytes
	Holds []bundleFile `json:"holds"`
	Left  []string     `json:"left_out"`
}

type bundleFile struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // bytes, unpacked
}

// readZip lists what is in the zip at path. It reads it whole: each node's part is bounded (cluster/support). What
// is no zip, as from something that is no duetd, is an error.
func readZip(path string) (bundle, error) {
	out := bundle{File: path, Left: []string{}}
	b, err := os.ReadFile(path)
	if err != nil {
		return out, fmt.Errorf("read zip: %w", err)
	}
	out.Size = int64(len(b))
	z, err := zip.NewReader(bytes.NewReader(b), out.Size)
	if err != nil {
		return out, fmt.Errorf("read zip %s: %w", path, err)
	}
	for _, f := range z.File {
		// What is missing is a file of its own in the zip, so that who is to help sees it too.
		if f.Name != support.LeftOut {
			out.Holds = append(out.Holds, bundleFile{f.Name, int64(f.UncompressedSize64)})
			continue
		}
		text, err := fs.ReadFile(z, f.Name)
		if err != nil {
			return out, fmt.Errorf("read zip %s: %w", path, err)
		}
		for line := range strings.Lines(string(text)) {
			out.Left = append(out.Left, strings.TrimSuffix(line, "\n"))
		}
	}
	return out, nil
}

func writeBundle(w io.Writer, b bundle) error {
	var s strings.Builder
	fmt.Fprintf(&s, "%s (%s) holds\n", clean(b.File), bytesText(b.Size))
	for _, f := range b.Holds {
		fmt.Fprintf(&s, "  %s (%s)\n", clean(f.Name), bytesText(f.Size))
	}
	if len(b.Left) > 0 {
		s.WriteString("Left out\n")
	}
	for _, l := range b.Left {
		fmt.Fprintf(&s, "  %s\n", clean(l))
	}
	_, err := io.WriteString(w, s.String())
	return err
}
