package guest

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// kernelPackage finds the real kernel in what apt-cache says of the meta package.
func kernelPackage(depends string) string {
	for _, line := range strings.Split(depends, "\n") {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if key == "Depends" && strings.HasPrefix(value, "linux-image-") {
			return value
		}
	}
	return ""
}

// wanted are the modules the guest uses, each of which brings its dependencies.
func wanted() []string {
	return []string{
		"virtio_pci", "virtio_blk", // the disk
		"virtio_console",  // the guest agent's channel
		"button", "evdev", // the power button
		"virtio_net",   // the network
		"pvpanic-mmio", // the isa panic device of libvirt
	}
}

// kernelTree is an unpacked kernel package.
type kernelTree struct {
	files   map[string]string // module name as in modinfo → path of its file
	builtin map[string]bool
}

// moduleName is how the kernel names a module: no extension, and dashes are underscores.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// readTree indexes the modules below root, which holds lib/modules/VERSION.
func readTree(root string) (*kernelTree, error) {
	t := &kernelTree{files: map[string]string{}, builtin: map[string]bool{}}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == "modules.builtin":
			b, err := os.ReadFile(path)
			for _, line := range strings.Fields(string(b)) {
				t.builtin[moduleName(line)] = true
			}
			return err
		case strings.Contains(d.Name(), ".ko"):
			t.files[moduleName(path)] = path
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("index kernel modules: %w", err)
	}
	return t, nil
}

// closure returns the files of names and of all they depend on, dependencies first. Drivers built into the
// kernel need no file. depends reads the dependencies of one module file. A name that is neither a file nor
// built in is fs.ErrNotExist: the guest would miss a device in silence.
func (t *kernelTree) closure(names []string, depends func(file string) ([]string, error)) ([]string, error) {
	var order []string
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		if seen[name] || t.builtin[name] {
			return nil
		}
		seen[name] = true
		file, ok := t.files[name]
		if !ok {
			return fmt.Errorf("find kernel module %s: %w", name, fs.ErrNotExist)
		}
		deps, err := depends(file)
		if err != nil {
			return err
		}
		for _, dep := range deps {
			if err := visit(dep); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// readDepends returns the modules that must be loaded before the one in file. The package has no modules.dep (depmod
// makes it at installation), so the list comes from the module itself.
func readDepends(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read kernel module %s: %w", filepath.Base(file), err)
	}
	defer f.Close()
	sec := f.Section(".modinfo")
	if sec == nil {
		return nil, fmt.Errorf("read kernel module %s: no .modinfo section", filepath.Base(file))
	}
	info, err := sec.Data()
	if err != nil {
		return nil, fmt.Errorf("read kernel module %s: %w", filepath.Base(file), err)
	}
	for _, entry := range strings.Split(string(info), "\x00") {
		if list, ok := strings.CutPrefix(entry, "depends="); ok {
			return strings.FieldsFunc(list, func(r rune) bool { return r == ',' }), nil
		}
	}
	return nil, nil
}
