package vmtest

// Commands that the guest of BootSector obeys when they come in on its first
// serial port. It repeats each command there once it is in force, and sends Ready
// when it has booted and Wrote or Failed for each write.
const (
	GuestOff    = 'q' // switch off, as an operating system does at the end of a shutdown
	GuestPanic  = 'p' // report a panic to a pvpanic device (ISA, port 0x505)
	GuestDeaf   = 'd' // ignore the power button from now on
	GuestWrite  = 'w' // write one sector of the boot disk 18 times a second
	GuestReady  = '!' // it has booted
	GuestWrote  = '.' // a write succeeded
	GuestFailed = 'E' // the guest was shown a disk error
)

const (
	// The BIOS loads the sector there, the stack grows down from it, and the two variables lie just behind the
	// sector.
	loadAddress = 0x7c00
	driveVar    = 0x7e00 // BIOS number of the boot disk
	commandVar  = 0x7e01 // the last command
	sectorSize  = 512
)

// BootSector returns a guest that fits into the first sector of its disk. It runs
// in real mode on QEMU's pc and q35 machines under SeaBIOS, boots in a fraction of
// a second without hardware virtualization, sleeps between timer ticks, switches
// off when its power button is pressed, and obeys the commands above.
func BootSector() []byte {
	a := &assembler{labels: map[string]int{}}
	a.begin()
	a.loop()
	a.powerAndPanic()
	a.write()
	return a.sector()
}

// begin sets up segments and stack, and makes the power button show in the ACPI status register. The ACPI registers
// are where SeaBIOS puts them on both machines: 0x600 PM1_STS, 0x602 PM1_EN, 0x604 PM1_CNT. Bit 8 of the first two
// is the power button.
func (a *assembler) begin() {
	a.emit(0xfa)                         // cli
	a.emit(0x31, 0xc0)                   // xor ax,ax
	a.emit(0x8e, 0xd8, 0x8e, 0xc0)       // mov ds,ax; mov es,ax
	a.emit(0x8e, 0xd0, 0xbc, 0x00, 0x7c) // mov ss,ax; mov sp,0x7c00
	a.emit(0xfb)                         // sti
	a.emit(0x88, 0x16).word(driveVar)    // mov [drive],dl
	a.emit(0xc6, 0x06).word(commandVar).emit(0)
	a.emit(0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef) // mov dx,0x602; mov ax,0x100; out dx,ax
	a.emit(0xb0, GuestReady).jump(opCall, "putc")    // mov al,'!'; call putc
}

// loop waits for a timer tick, the power button or a command, and does the last command again. The bit of the
// pressed button is never cleared: a deaf guest that is given another command switches off at once. 0x3fd is the
// line status of the first serial port; bit 0: a byte has come in at 0x3f8.
func (a *assembler) loop() {
	a.label("loop")
	a.emit(0xf4)                                  // hlt
	a.emit(0xba, 0x00, 0x06, 0xed)                // mov dx,0x600; in ax,dx
	a.emit(0xf6, 0xc4, 0x01).jump(opJNZ, "press") // test ah,1
	a.label("listen")
	a.emit(0xba, 0xfd, 0x03, 0xec)        // mov dx,0x3fd; in al,dx
	a.emit(0xa8, 0x01).jump(opJZ, "obey") // test al,1
	a.emit(0xba, 0xf8, 0x03, 0xec)        // mov dx,0x3f8; in al,dx
	a.emit(0xa2).word(commandVar)         // mov [command],al
	a.jump(opCall, "putc")
	a.label("obey")                             //
	a.emit(0xa0).word(commandVar)               // mov al,[command]
	a.emit(0x3c, GuestOff).jump(opJZ, "off")    // cmp al,'q'
	a.emit(0x3c, GuestPanic).jump(opJZ, "fail") // cmp al,'p'
	a.emit(0x3c, GuestWrite).jump(opJZ, "write")
	a.jump(opJMP, "loop")
	a.label("press")
	a.emit(0x80, 0x3e).word(commandVar).emit(GuestDeaf).jump(opJZ, "listen") // cmp byte [command],'d'
}

// powerAndPanic is what two of the commands jump to, and the output of a byte, which does not wait until the port
// is free: it sends two for each tick at most.
func (a *assembler) powerAndPanic() {
	a.label("off") // falls in from "press"
	// mov dx,0x604; mov ax,0x2000 (soft off); out dx,ax
	a.emit(0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef).jump(opJMP, "loop")
	a.label("fail")
	a.emit(0xba, 0x05, 0x05, 0xb0, 0x01, 0xee) // mov dx,0x505; mov al,1 (panicked); out dx,al
	a.label("dead")
	a.emit(0xf4).jump(opJMP, "dead") // hlt
	a.label("putc")
	a.emit(0xba, 0xf8, 0x03, 0xee, 0xc3) // mov dx,0x3f8; out dx,al; ret
}

// write writes the sectors 1, 3, 5… 63 in turn through the BIOS and tells the outcome.
func (a *assembler) write() {
	const lba = 8 // offset of the sector number in the packet
	a.label("write")
	a.emit(0xff, 0x06).ref("packet", lba)            // inc word [lba]
	a.emit(0x83, 0x26).ref("packet", lba).emit(0x3f) // and word [lba],63
	a.emit(0x80, 0x0e).ref("packet", lba).emit(0x01) // or byte [lba],1
	a.emit(0xbe).ref("packet", 0)                    // mov si,packet
	a.emit(0x8a, 0x16).word(driveVar)                // mov dl,[drive]
	a.emit(0xb8, 0x00, 0x43, 0xcd, 0x13)             // mov ax,0x4300; int 0x13 (extended write)
	a.emit(0xb0, GuestWrote).jump(opJNC, "told")     // mov al,'.'
	a.emit(0xb0, GuestFailed)                        // mov al,'E'
	a.label("told")                                  //
	a.jump(opCall, "putc").jump(opJMP, "loop")       //
	a.label("packet")                                // disk address packet:
	a.emit(16, 0, 1, 0).word(loadAddress).word(0)    // its size, one sector, from this code
	a.emit(0, 0, 0, 0, 0, 0, 0, 0)                   // to sector number
}

// opcode is a jump or call.
type opcode byte

const (
	opJZ   opcode = 0x74
	opJNZ  opcode = 0x75
	opJNC  opcode = 0x73
	opJMP  opcode = 0xeb
	opCall opcode = 0xe8
)

// assembler collects machine code; places that name a label are filled in at the end. A mistake (an unknown label,
// a jump that is too far) shows when the guest does not boot: nothing is checked.
type assembler struct {
	code   []byte
	labels map[string]int
	fixes  []func()
}

func (a *assembler) emit(b ...byte) *assembler {
	a.code = append(a.code, b...)
	return a
}

// word emits 16 bits, little-endian.
func (a *assembler) word(w int) *assembler { return a.emit(byte(w), byte(w>>8)) }

func (a *assembler) label(name string) { a.labels[name] = len(a.code) }

// jump goes to a label: 8 bits of distance, 16 for a call.
func (a *assembler) jump(op opcode, to string) *assembler {
	a.emit(byte(op), 0)
	if op == opCall {
		a.emit(0)
	}
	next := len(a.code)
	a.fixes = append(a.fixes, func() {
		distance := a.labels[to] - next
		if op == opCall {
			a.code[next-2], a.code[next-1] = byte(distance), byte(distance>>8)
			return
		}
		a.code[next-1] = byte(int8(distance))
	})
	return a
}

// ref emits the address of a label plus an offset.
func (a *assembler) ref(to string, offset int) *assembler {
	at := len(a.code)
	a.fixes = append(a.fixes, func() {
		address := loadAddress + a.labels[to] + offset
		a.code[at], a.code[at+1] = byte(address), byte(address>>8)
	})
	return a.word(0)
}

// sector returns the code with its labels filled in and the mark of a boot sector.
func (a *assembler) sector() []byte {
	for _, fix := range a.fixes {
		fix()
	}
	sector := make([]byte, sectorSize)
	copy(sector, a.code)
	sector[sectorSize-2], sector[sectorSize-1] = 0x55, 0xaa
	return sector
}
