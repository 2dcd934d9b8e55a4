package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// watchPowerButton tells stop when the ACPI power button is pressed (`virsh shutdown --mode acpi`). It looks for
// the button once, so its module has to be loaded before.
func watchPowerButton(stop chan<- os.Signal) {
	const evKey, keyPower = 1, 116
	names, _ := filepath.Glob("/dev/input/event*") // the pattern is constant: no error
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		go func() {
			defer f.Close()
			ev := make([]byte, 24) // struct input_event of a 64-bit kernel: time, type, code, value
			for {
				if _, err := io.ReadFull(f, ev); err != nil {
					return
				}
				if binary.LittleEndian.Uint16(ev[16:]) == evKey && binary.LittleEndian.Uint16(ev[18:]) == keyPower {
					end(stop)
					return
				}
			}
		}()
	}
}

// end asks for the end of the VM. It waits for nobody: where stop is full that is asked for already.
func end(stop chan<- os.Signal) {
	select {
	case stop <- unix.SIGTERM:
	default:
	}
}

// serveAgent speaks the part of the QEMU guest agent's protocol that libvirt uses to ask whether a guest lives
// and to switch it off. It returns at once if the VM has no agent channel. Commands it does not know are
// answered with an error, as libvirt waits for an answer.
func serveAgent(stop chan<- os.Signal) {
	port, err := openAgentPort()
	if err != nil {
		return
	}
	defer port.Close()
	r := bufio.NewReader(port)
	var line []byte
	for {
		part, err := r.ReadBytes('\n')
		line = append(line, part...)
		if err != nil || len(line) > 64<<10 {
			if err == nil {
				line = nil
			}
			time.Sleep(100 * time.Millisecond) // end of file means that nobody is connected outside
			continue
		}
		if reply := answer(line, stop); reply != nil {
			if _, err := port.Write(reply); err != nil {
				return
			}
		}
		line = nil
	}
}

// openAgentPort: it is found by the name that libvirt gives it; the device node needs no udev.
func openAgentPort() (*os.File, error) {
	names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && strings.TrimSpace(string(b)) == "org.qemu.guest_agent.0" {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_RDWR, 0)
		}
	}
	return nil, os.ErrNotExist
}

// answer returns the reply to one request, nil if there is none to give. A request that is not JSON has no
// reply: the agent's line may have begun in the middle.
func answer(line []byte, stop chan<- os.Signal) []byte {
	line = bytes.TrimLeft(line, "\xff \r\n") // 0xff resets the parser of a real agent
	var req struct {
		Execute   string `json:"execute"`
		Arguments struct {
			ID   int64  `json:"id"`
			Mode string `json:"mode"`
		} `json:"arguments"`
	}
	if json.Unmarshal(line, &req) != nil {
		return nil
	}
	switch req.Execute {
	case "guest-ping":
		return []byte("{\"return\": {}}\n")
	case "guest-sync":
		return fmt.Appendf(nil, "{\"return\": %d}\n", req.Arguments.ID)
	case "guest-sync-delimited":
		return fmt.Appendf(nil, "\xff{\"return\": %d}\n", req.Arguments.ID)
	case "guest-shutdown":
		end(stop) // success is the end of the VM, not an answer
		return nil
	}
	reply, err := json.Marshal(map[string]any{"error": map[string]string{
		"class": "CommandNotFound", "desc": "the test guest does not know " + req.Execute,
	}})
	if err != nil {
		return nil
	}
	return append(reply, '\n')
}
