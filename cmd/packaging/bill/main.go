// Command bill writes what the built programs are made of, read from the programs themselves: a CycloneDX bill of
// materials, and the licences of every Go module in them. Read from them, and not from go.mod, it has just what the
// linker took. It holds no time and no path of the builder: the same programs give the same bytes (build.sh).
//
//	bill -version 0.8.0 -sbom duet.cdx.json -licences THIRD-PARTY PROGRAM...
//
// A flag that is left out is a file that is not written. It fails, exit 1, rather than write a bill that lacks
// something; a file that it has begun may be left. The licences need the modules' sources, which the go command has
// after a build; it is run in the directory of Duet's go.mod. What is linked in or loaded beside Go (libvirt, libc)
// is not in it.
package main

import (
	"bytes"
	"cmp"
	"debug/buildinfo"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

func main() {
	version := flag.String("version", "", "`version` of Duet")
	sbom := flag.String("sbom", "", "`file` of the bill of materials")
	licences := flag.String("licences", "", "`file` of the modules' licences")
	flag.Parse()
	if err := run(*version, *sbom, *licences, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bill:", err)
		os.Exit(1)
	}
}

// run reads the programs once for both files.
func run(version, sbom, licences string, programs []string) error {
	mods, toolchain, err := modules(programs)
	if err != nil {
		return err
	}
	if sbom != "" {
		b, err := bill(version, toolchain, mods, programs)
		if err != nil {
			return err
		}
		if err := os.WriteFile(sbom, b, 0o644); err != nil {
			return err
		}
	}
	if licences != "" {
		b, err := texts(mods)
		if err != nil {
			return err
		}
		return os.WriteFile(licences, b, 0o644)
	}
	return nil
}

// modules returns the modules linked into the programs, in order and each once, and the Go release that built them,
// which is that of the last one: one build makes them all. A module that is replaced counts as what replaces it.
func modules(programs []string) (mods []*debug.Module, toolchain string, err error) {
	for _, p := range programs {
		info, err := buildinfo.ReadFile(p)
		if err != nil {
			return nil, "", fmt.Errorf("read what %s is made of: %w", p, err)
		}
		toolchain = info.GoVersion
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			mods = append(mods, m)
		}
	}
	slices.SortFunc(mods, func(a, b *debug.Module) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Version, b.Version))
	})
	mods = slices.CompactFunc(mods, func(a, b *debug.Module) bool { return a.Path == b.Path && a.Version == b.Version })
	return mods, toolchain, nil
}

// texts joins the licences of Go itself and of the modules. A module without one is an error: it could not be given
// on. Go's own is that of the go command which runs now.
func texts(mods []*debug.Module) ([]byte, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("find Go's licence: %w", err)
	}
	dirs, err := folders(mods)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	fmt.Fprint(&out, "The programs of Duet hold these Go modules. The source of each is at its path and version.\n")
	if err := licence(&out, "Go and its standard library", strings.TrimSpace(string(root))); err != nil {
		return nil, err
	}
	for _, m := range mods {
		if err := licence(&out, m.Path+" "+m.Version, dirs[m.Path]); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// folders returns the directory of each module's source, as this build's go.mod has it.
func folders(mods []*debug.Module) (map[string]string, error) {
	args := []string{"list", "-m", "-f", "{{.Path}}\t{{.Dir}}"}
	for _, m := range mods {
		args = append(args, m.Path)
	}
	list, err := exec.Command("go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("find the modules' sources: %w", err)
	}
	dirs := map[string]string{}
	for line := range strings.Lines(string(list)) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		dirs[path] = dir
	}
	return dirs, nil
}

// licence appends the files of dir that say on which terms it is given: those of the top directory whose names
// begin as such files do. NOTICE and PATENTS belong to a licence and are none.
func licence(out *bytes.Buffer, name, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("licence of %s: %w", name, err)
	}
	fmt.Fprintf(out, "\n%s\n%s\n", strings.Repeat("=", 100), name)
	found := false
	for _, e := range entries {
		upper := strings.ToUpper(e.Name())
		terms := strings.HasPrefix(upper, "LICEN") || strings.HasPrefix(upper, "COPYING")
		if !terms && !strings.HasPrefix(upper, "NOTICE") && !strings.HasPrefix(upper, "PATENTS") || e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return fmt.Errorf("licence of %s: %w", name, err)
		}
		fmt.Fprintf(out, "\n%s\n", bytes.TrimSpace(b))
		found = found || terms
	}
	if !found {
		return fmt.Errorf("%s has no licence in %s", name, dir)
	}
	return nil
}
