package nbd

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzOption negotiates with anything: replies must be well-formed and only a choice leads on.
func FuzzOption(f *testing.F) {
	seed := func(opt uint32, data ...byte) { f.Add(opt, data, true) }
	seed(optExportName, 'v', 'o', 'l')
	seed(optGo, 0, 0, 0, 3, 'v', 'o', 'l', 0, 1, 0, 3)
	seed(optInfo, 0, 0, 0, 0, 0, 0)
	seed(optSetMeta, append([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 15}, allocation...)...)
	seed(optListMeta, 0, 0, 0, 0, 0, 0, 0, 0)
	seed(optList)
	seed(5)
	f.Fuzz(func(t *testing.T, opt uint32, data []byte, structured bool) {
		h := &negotiation{name: "vol", size: 1 << 20, mapped: true, structured: structured}
		reply, v, err := h.option(opt, data)
		if v == transmit && opt != optGo && opt != optExportName {
			t.Fatalf("option %d led to transmission", opt)
		}
		if err != nil || opt == optExportName {
			return
		}
		last := uint32(0)
		for len(reply) > 0 {
			if len(reply) < 20 || binary.BigEndian.Uint64(reply) != magicOptReply || binary.BigEndian.Uint32(reply[8:]) != opt {
				t.Fatalf("malformed reply %x", reply)
			}
			last = binary.BigEndian.Uint32(reply[12:])
			n := int(binary.BigEndian.Uint32(reply[16:]))
			reply = reply[20+n:]
		}
		if last != repAck && last>>31 != 1 {
			t.Fatalf("option %d ends with reply %d", opt, last)
		}
		if v == transmit && last != repAck {
			t.Fatal("transmission after a refusal")
		}
	})
}

// FuzzHeader decodes any header; what is accepted encodes to the same bytes.
func FuzzHeader(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0}, requestSize))
	f.Add(encode(header{flags: flagFUA, cmd: cmdWrite, cookie: 7, off: 512, length: 4096}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < requestSize {
			return
		}
		h, err := parseHeader(b)
		if err != nil {
			return
		}
		if h.payload() > maxPayload {
			t.Fatalf("payload %d", h.payload())
		}
		if !bytes.Equal(encode(h), b[:requestSize]) {
			t.Fatalf("%+v is not %x", h, b[:requestSize])
		}
	})
}

func encode(h header) []byte {
	b := binary.BigEndian.AppendUint32(nil, magicRequest)
	b = binary.BigEndian.AppendUint16(b, h.flags)
	b = binary.BigEndian.AppendUint16(b, h.cmd)
	b = binary.BigEndian.AppendUint64(b, h.cookie)
	b = binary.BigEndian.AppendUint64(b, h.off)
	return binary.BigEndian.AppendUint32(b, h.length)
}

func TestClasses(t *testing.T) {
	var p chunkPool
	for _, n := range []int{
		1, chunkSize, chunkSize + slack, chunkSize + slack + 1, 1 << 20,
		maxPayload, maxPayload + dataHeaderSize, maxPayload + slack,
	} {
		ch := p.get(n)
		if len(ch.buf) < n || (n > chunkSize+slack && len(ch.buf) > 2*n) {
			t.Errorf("chunk of %d bytes for %d", len(ch.buf), n)
		}
		if class(len(ch.buf)) != class(n) {
			t.Errorf("a chunk for %d goes back to another class", n)
		}
		p.put(ch)
	}
}
