package guest

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// bare is the source of the small guest.
//
//go:embed bare
var bare embed.FS

// BuildBare compiles the small guest into dir with gcc: the writer of Build without an operating system, which
// boots within a moment where a kernel takes minutes. It needs no initramfs and knows no mode, see bare/bare.c.
// dir must be there; the sources are left beside the program. Not for two callers in one folder.
func BuildBare(ctx context.Context, dir string) (Files, error) {
	for _, name := range []string{"bare.c", "bare.ld"} {
		text, err := bare.ReadFile("bare/" + name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o644)
		}
		if err != nil {
			return Files{}, fmt.Errorf("build small guest: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, "gcc", "-m32", "-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding",
		"-fno-pic", "-no-pie", "-mgeneral-regs-only", "-fno-stack-protector", "-fno-strict-aliasing", "-nostdlib", "-static",
		"-Wl,-n,--build-id=none,-T,bare.ld", "-o", "bare", "bare.c")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return Files{}, fmt.Errorf("build small guest: %w: %s", err, out)
	}
	return Files{Kernel: filepath.Join(dir, "bare")}, nil
}
