// The small guest: what testbed/guest/init does, without an operating system. It boots as a Multiboot kernel on QEMU's
// "pc" machine within a moment, also where the emulated processor is emulated itself. It appends records to the first
// virtio disk and says on the first serial port what it did, in the words of init. Of init's options it knows
// duet.rate (at most HZ, for which 0 stands) and duet.flush; its only mode is the writer.
//
// It waits for its disk by looking at it at each tick of the clock, and sleeps between.

#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

enum { HZ = 50, SIZE = 4096, SECTOR = 512, MAX_SLOTS = 1 << 16, CHUNK = 256 };

// ---- processor

static inline void out8(u16 port, u8 v) { asm volatile("outb %0, %1" ::"a"(v), "Nd"(port) : "memory"); }
static inline void out16(u16 port, u16 v) { asm volatile("outw %0, %1" ::"a"(v), "Nd"(port) : "memory"); }
static inline void out32(u16 port, u32 v) { asm volatile("outl %0, %1" ::"a"(v), "Nd"(port) : "memory"); }
static inline u8 in8(u16 port) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline u16 in16(u16 port) { u16 v; asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline u32 in32(u16 port) { u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }

// The Multiboot header, and the entry with the loader's tables in ebx. The clock's interrupt does nothing but wake the
// processor.
asm(".section .multiboot, \"a\"\n"
    ".align 4\n.long 0x1badb002, 3, -(0x1badb002 + 3)\n"
    ".text\n"
    ".globl start\nstart: cli; lgdt gdtr; ljmp $8, $1f\n"
    "1: mov $16, %ax; mov %ax, %ds; mov %ax, %es; mov %ax, %ss\n"
    "mov $stack + 16384, %esp; push %ebx; call kernel\n"
    "tick: push %eax; mov $0x20, %al; out %al, $0x20; pop %eax; iret\n"
    ".align 8\ngdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff\n"
    "gdtr: .word 23; .long gdt\n");

u8 stack[16384] __attribute__((aligned(16)));
extern void tick(void);

// The compiler calls these by itself.
void *memset(void *to, int c, unsigned long n) {
	for (u8 *p = to; n--;) *p++ = c;
	return to;
}
void *memcpy(void *to, const void *from, unsigned long n) {
	const u8 *f = from;
	for (u8 *p = to; n--;) *p++ = *f++;
	return to;
}

// clock makes interrupts HZ times a second, and none else.
static void clock(void) {
	static struct { u16 low, selector, flags, high; } idt[64];
	static struct { u16 limit; u32 base; } __attribute__((packed)) idtr;
	u32 at = (u32)tick;
	idt[32].low = at;
	idt[32].selector = 8;
	idt[32].flags = 0x8e00;
	idt[32].high = at >> 16;
	idtr.limit = sizeof idt - 1;
	idtr.base = (u32)idt;
	asm volatile("lidt %0" ::"m"(idtr));
	const u8 pic[] = {0x11, 32, 4, 1}, second[] = {0x11, 40, 2, 1};
	for (int i = 0; i < 4; i++) {
		out8(i ? 0x21 : 0x20, pic[i]);
		out8(i ? 0xa1 : 0xa0, second[i]);
	}
	out8(0x21, 0xfe);
	out8(0xa1, 0xff);
	out8(0x43, 0x34);
	out8(0x40, (1193182 / HZ) & 0xff);
	out8(0x40, (1193182 / HZ) >> 8);
}

static void nap(void) { asm volatile("sti; hlt; cli" ::: "memory"); }

// ---- console

static void say(const char *s) {
	for (; *s; s++) {
		while (!(in8(0x3fd) & 0x20)) {}
		out8(0x3f8, *s);
	}
}

static void number(const char *before, u32 n) {
	char digits[11], *p = digits + 10;
	*p = 0;
	do *--p = '0' + n % 10;
	while (n /= 10);
	say(before);
	say(p);
}

// ---- power: the ACPI registers where SeaBIOS puts them

static void powerButton(void) { out16(0x602, 0x100); }
static int pressed(void) { return in16(0x600) & 0x100; }

static void off(void) {
	say("DUET poweroff\n");
	while (!(in8(0x3fd) & 0x40)) {} // the port has sent it all
	out16(0x604, 0x2000);
	for (;;) nap();
}

// fail stays up: a guest that switched itself off would hide the error from whoever looks at the VM's state.
static void fail(const char *what, u32 n, u32 status) {
	number("DUET error ", n);
	say(what);
	number(": status ", status);
	say("\n");
	while (!pressed()) nap();
	off();
}

// ---- disk: virtio 0.9 over ports, one request at a time

enum { READ = 0, WRITE = 1, FLUSH = 4, FEATURE_FLUSH = 1 << 9 };

static u16 port, queueSize, asked;
static u8 queue[65536] __attribute__((aligned(4096)));
static struct { u32 type, zero; u64 sector; } header;
static volatile u8 status;

struct descriptor { u64 at; u32 length; u16 flags, next; };

static u32 pci(u32 device, u32 reg) {
	out32(0xcf8, 0x80000000 | device << 11 | reg);
	return in32(0xcfc);
}

// disk finds the device and returns its size in sectors.
static u32 disk(void) {
	for (u32 d = 0; d < 32 && !port; d++)
		if (pci(d, 0) == 0x10011af4) {
			port = pci(d, 0x10) & ~3;
			u32 command = pci(d, 4);
			out32(0xcfc, command | 5); // ports, bus master
		}
	if (!port) fail("no virtio disk", 0, 0);
	out8(port + 18, 0);
	out8(port + 18, 3);
	if (!(in32(port) & FEATURE_FLUSH)) fail("a disk that cannot flush", 0, 0);
	out32(port + 4, FEATURE_FLUSH);
	out16(port + 14, 0);
	queueSize = in16(port + 12);
	if (queueSize < 3 || queueSize > 1024) fail("queue", 0, queueSize);
	*(u16 *)(queue + 16 * queueSize) = 1; // no interrupts
	out32(port + 8, (u32)queue / 4096);
	out8(port + 18, 7);
	return in32(port + 20);
}

// request returns 0 when the disk has done it.
static u8 request(u32 type, u32 sector, void *data, u32 length) {
	struct descriptor *d = (void *)queue;
	u16 *ring = (void *)(queue + 16 * queueSize);
	u32 used = (16 * queueSize + 6 + 2 * queueSize + 4095) & ~4095;
	header.type = type;
	header.sector = sector;
	status = 0xff;
	d[0] = (struct descriptor){(u32)&header, sizeof header, 1, length ? 1 : 2};
	d[1] = (struct descriptor){(u32)data, length, type == READ ? 3 : 1, 2};
	d[2] = (struct descriptor){(u32)&status, 1, 2, 0};
	ring[2 + asked % queueSize] = 0;
	asm volatile("" ::: "memory");
	ring[1] = ++asked;
	asm volatile("" ::: "memory");
	out16(port + 16, 0);
	while (*(volatile u16 *)(queue + used + 2) != asked) nap();
	asm volatile("" ::: "memory");
	return status;
}

// ---- records: package record

static u32 slots, table[256];
static u32 numbers[MAX_SLOTS], sums[MAX_SLOTS], prevs[MAX_SLOTS];
static u32 boot[4];
static u8 chunk[CHUNK * SIZE] __attribute__((aligned(4096)));

static u32 crc(const u8 *p, u32 n) {
	u32 c = ~0u;
	while (n--) c = table[(c ^ *p++) & 0xff] ^ c >> 8;
	return ~c;
}

static u32 encode(u8 *block, u32 n, u32 prev) {
	u32 *w = (void *)block;
	memset(block, 0, 40);
	memcpy(block, "DUETREC1", 8);
	w[2] = n;
	memcpy(block + 16, boot, 16);
	w[8] = prev;
	u64 x = (n * 0x9e3779b97f4a7c15ull ^ ((u64)boot[1] << 32 | boot[0])) | 1;
	for (int i = 40; i + 8 <= SIZE - 4; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		*(u64 *)(block + i) = x;
	}
	w[SIZE / 4 - 2] = x >> 32;
	return w[SIZE / 4 - 1] = crc(block, SIZE - 4);
}

static u32 last, holes, torn, breaks;

static void look(const u8 *block, u32 slot) {
	const u32 *w = (const void *)block, *magic = (const void *)"DUETREC1";
	if (w[0] != magic[0] || w[1] != magic[1]) return;
	if (crc(block, SIZE - 4) != w[SIZE / 4 - 1]) {
		torn++;
	} else if (w[2] && !w[3] && (w[2] - 1) % slots == slot) {
		numbers[slot] = w[2];
		prevs[slot] = w[8];
		sums[slot] = w[SIZE / 4 - 1];
		if (w[2] > last) last = w[2];
	}
}

static void scan(void) {
	for (u32 at = 0; at < slots; at += CHUNK) {
		u32 n = slots - at < CHUNK ? slots - at : CHUNK;
		u8 bad = request(READ, at * (SIZE / SECTOR), chunk, n * SIZE);
		if (bad) fail(" is a slot that cannot be read", at, bad);
		for (u32 i = 0; i < n; i++) look(chunk + i * SIZE, at + i);
	}
	for (u32 n = last > slots ? last - slots + 1 : 1; n <= last; n++) {
		u32 here = (n - 1) % slots, before = (n - 2) % slots;
		if (numbers[here] != n)
			holes++;
		else if (n > 1 && numbers[before] == n - 1 && sums[before] != prevs[here])
			breaks++;
	}
	number("DUET scan last=", last);
	number(" holes=", holes);
	number(" torn=", torn);
	number(" breaks=", breaks);
	say("\n");
}

// identify makes a number that no other boot has, of the date and the processor's counter.
static void identify(void) {
	const u8 date[] = {0, 2, 4, 7, 8, 9};
	u64 x = 0;
	for (int i = 0; i < 6; i++) {
		out8(0x70, date[i]);
		x = x << 8 | in8(0x71);
	}
	for (int i = 0; i < 4; i++) {
		u32 low, high;
		asm volatile("rdtsc" : "=a"(low), "=d"(high));
		x = (x ^ ((u64)high << 32 | low)) + 0x9e3779b97f4a7c15ull;
		x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
		x = (x ^ x >> 27) * 0x94d049bb133111ebull;
		boot[i] = x >> 16;
		if (i & 1) nap();
	}
	say("--\nDUET boot ");
	char hex[3] = {0};
	for (int i = 0; i < 16; i++) {
		u8 b = ((u8 *)boot)[i];
		hex[0] = "0123456789abcdef"[b >> 4];
		hex[1] = "0123456789abcdef"[b & 15];
		say(hex);
	}
	number(" slots=", slots);
	say("\n");
}

// option reads a number from the kernel's command line.
static u32 option(const char *line, const char *name, u32 otherwise) {
	for (; *line; line++) {
		const char *p = line, *q = name;
		while (*q && *p == *q) p++, q++;
		if (*q) continue;
		u32 n = 0;
		for (; *p >= '0' && *p <= '9'; p++) n = n * 10 + *p - '0';
		return n;
	}
	return otherwise;
}

static void flush(void) {
	u8 bad = request(FLUSH, 0, 0, 0);
	if (bad) fail(" is not flushed", last, bad);
	number("DUET flush ", last);
	say("\n");
}

void kernel(const u32 *loader) {
	const char *line = loader[0] & 4 ? (const char *)loader[4] : "";
	clock();
	powerButton();
	for (u32 i = 0; i < 256; i++) {
		u32 c = i;
		for (int k = 0; k < 8; k++) c = c & 1 ? 0x82f63b78 ^ c >> 1 : c >> 1;
		table[i] = c;
	}
	u32 rate = option(line, "duet.rate=", HZ), every = option(line, "duet.flush=", 10), due = 0;
	if (!rate || rate > HZ) rate = HZ;
	slots = disk() / (SIZE / SECTOR);
	if (!slots || slots > MAX_SLOTS) fail(" slots are too many", slots, 0);
	identify();
	scan();
	u32 prev = last ? sums[(last - 1) % slots] : 0;
	while (!pressed()) {
		nap();
		if ((due += rate) < HZ) continue;
		due -= HZ;
		prev = encode(chunk, last + 1, prev);
		u8 bad = request(WRITE, last % slots * (SIZE / SECTOR), chunk, SIZE);
		if (bad) fail(" is not written", last + 1, bad);
		number("DUET ack ", ++last);
		say("\n");
		if (every && last % every == 0) flush();
	}
	flush();
	off();
}
