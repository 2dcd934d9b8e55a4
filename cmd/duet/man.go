//go:build man

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"duet/cmd/version"
)

// main, with the tag man, writes the manual pages of all commands and the completion of three shells into a directory
// (go run -tags man ./cmd/duet DIR). It is a build of its own because what writes manual pages has no place in duet.
func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "say one directory")
		os.Exit(exitUsage)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "write manual pages and completion:", err)
		os.Exit(exitError)
	}
}

// write overwrites the files of those names in dir, which has to be there. Nothing of the environment or of this
// computer shows in them: with SOURCE_DATE_EPOCH the same source gives the same bytes.
func write(dir string) error {
	a := &app{version: version.String(), env: func(string) string { return "" }} // defaults are nobody's own
	root := a.root()
	root.DisableAutoGenTag = true
	// The date is SOURCE_DATE_EPOCH's.
	header := doc.GenManHeader{Section: "1", Source: "duet " + a.version, Manual: "Duet"}
	if err := doc.GenManTree(root, &header, dir); err != nil {
		return err
	}
	for name, shell := range map[string]func(*cobra.Command, io.Writer) error{
		"duet.bash": func(c *cobra.Command, w io.Writer) error { return c.GenBashCompletionV2(w, true) },
		"duet.zsh":  (*cobra.Command).GenZshCompletion,
		"duet.fish": func(c *cobra.Command, w io.Writer) error { return c.GenFishCompletion(w, true) },
	} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := shell(root, f); err != nil {
			_ = f.Close() // the first error counts
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
