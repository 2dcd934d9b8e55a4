package cpuidle

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// Hold asks the kernel for wake-ups without delay until the Closer is closed
// (Documentation/power/pm_qos_interface.rst: a binary int32 of microseconds).
func Hold() (io.Closer, error) {
	f, err := os.OpenFile("/dev/cpu_dma_latency", os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("ask for fast wake-ups: %w", err)
	}
	if _, err := f.Write(binary.NativeEndian.AppendUint32(nil, 0)); err != nil {
		_ = f.Close() // nothing was asked for
		return nil, fmt.Errorf("ask for fast wake-ups: %w", err)
	}
	return f, nil
}
