package nbd

import (
	"encoding/binary"
	"fmt"
	"slices"

	"duet/blockrepl"
)

// Options, the kinds of their replies (an error has the top bit), the information items, and the handshake flags.
const (
	optExportName     = 1
	optAbort          = 2
	optList           = 3
	optInfo           = 6
	optGo             = 7
	optStructured     = 8
	optListMeta       = 9
	optSetMeta        = 10
	repAck            = 1
	repServer         = 2
	repInfo           = 3
	repMetaContext    = 4
	errUnsup          = 1<<31 + 1
	errInvalid        = 1<<31 + 3
	errUnknown        = 1<<31 + 6
	infoExport        = 0
	infoName          = 1
	infoBlockSize     = 3
	handFixedNewstyle = 1 << 0 // handshake flags, the same for both sides
	handNoZeroes      = 1 << 1
)

// Limits of the haggling. The longest name the protocol has is 4096 bytes.
const (
	maxOption   = 64 << 10
	maxName     = 4096
	maxOptions  = 256 // options a client may send before it must have chosen
	maxInfos    = 64
	allocation  = "base:allocation"
	allocPrefix = "base:" // asks LIST, and no SET, for all contexts of the namespace
	allocID     = 1       // what this server calls that context in block status replies
	preferred   = 4096    // bytes: what a client should align to; it must align to a sector
)

// verdict is what the connection does after an option was answered.
type verdict int

const (
	negotiating verdict = iota
	transmit            // the client chose the export
	hangUp              // the client wants no more
)

// negotiation is the state of the option phase: one client choosing the one export.
// It does no I/O and belongs to one goroutine. A client may ask in any order and repeat itself: the last
// SET_META_CONTEXT counts.
type negotiation struct {
	name   string // of the export; clients may also say ""
	size   int64
	mapped bool // the volume knows its holes

	noZeroes   bool // the client wants no padding after EXPORT_NAME
	structured bool // the client takes structured replies
	alloc      bool // client chose base:allocation
	seen       int  // options
}

// greeting is what the server says first.
func greeting() []byte {
	b := binary.BigEndian.AppendUint64(nil, magicServer)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	return binary.BigEndian.AppendUint16(b, handFixedNewstyle|handNoZeroes)
}

const clientFlagsSize = 4

// clientFlags takes the client's answer to the greeting. A flag that was not offered ends the connection, as the
// protocol demands; so does a client that speaks only the old styles, which have no errors and no structured replies.
func (h *negotiation) clientFlags(b []byte) error {
	flags := binary.BigEndian.Uint32(b)
	if flags&^(handFixedNewstyle|handNoZeroes) != 0 || flags&handFixedNewstyle == 0 {
		return fmt.Errorf("%w: client flags %#x", errProtocol, flags)
	}
	h.noZeroes = flags&handNoZeroes != 0
	return nil
}

const optionHeaderSize = 16

// parseOption decodes the header of an option; n bytes of data follow.
func parseOption(b []byte) (opt uint32, n int, err error) {
	if magic := binary.BigEndian.Uint64(b); magic != magicOption {
		return 0, 0, fmt.Errorf("%w: option magic %#x", errProtocol, magic)
	}
	opt, size := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	if size > maxOption {
		return 0, 0, fmt.Errorf("%w: option %d has %d bytes", errProtocol, opt, size)
	}
	return opt, int(size), nil
}

// optionHandlers answer one option each, appending to out.
var optionHandlers = map[uint32]func(h *negotiation, opt uint32, data, out []byte) ([]byte, verdict, error){
	optExportName: (*negotiation).exportName,
	optAbort:      (*negotiation).abort,
	optList:       (*negotiation).list,
	optInfo:       (*negotiation).info,
	optGo:         (*negotiation).info,
	optStructured: (*negotiation).structuredReply,
	optListMeta:   (*negotiation).metaContext,
	optSetMeta:    (*negotiation).metaContext,
}

// option answers one option. An error ends the connection without an answer; what a client may get wrong without
// harm is refused in the reply, so that it can ask for less.
func (h *negotiation) option(opt uint32, data []byte) (reply []byte, v verdict, err error) {
	if h.seen++; h.seen > maxOptions {
		return nil, hangUp, fmt.Errorf("%w: more than %d options", errProtocol, maxOptions)
	}
	handle, ok := optionHandlers[opt]
	if !ok {
		return refuse(nil, opt, errUnsup, "option not supported"), negotiating, nil
	}
	return handle(h, opt, data, nil)
}

func optReply(out []byte, opt, kind uint32, data []byte) []byte {
	out = binary.BigEndian.AppendUint64(out, magicOptReply)
	out = binary.BigEndian.AppendUint32(out, opt)
	out = binary.BigEndian.AppendUint32(out, kind)
	out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
	return append(out, data...)
}

func refuse(out []byte, opt, kind uint32, why string) []byte {
	return optReply(out, opt, kind, []byte(why))
}

// transmissionFlags is what the export can do for this client. DF needs structured replies: a simple one has no
// chunks.
func (h *negotiation) transmissionFlags() uint16 {
	can := uint16(canHasFlags | canFlush | canFUA | canTrim | canWriteZeroes | canMultiConn | canCache)
	if h.structured {
		can |= canDF
	}
	return can
}

func (h *negotiation) knows(name string) bool { return name == "" || name == h.name }

// exportName is the old way to choose: it has no error reply, only hanging up. Its answer has no magic, and 124
// bytes of padding unless the client declined them.
func (h *negotiation) exportName(_ uint32, data, out []byte) ([]byte, verdict, error) {
	if !h.knows(string(data)) {
		return nil, hangUp, fmt.Errorf("no export %.64q", data)
	}
	out = binary.BigEndian.AppendUint64(out, uint64(h.size))
	out = binary.BigEndian.AppendUint16(out, h.transmissionFlags())
	if !h.noZeroes {
		out = append(out, make([]byte, 124)...)
	}
	return out, transmit, nil
}

func (h *negotiation) abort(opt uint32, _, out []byte) ([]byte, verdict, error) {
	return optReply(out, opt, repAck, nil), hangUp, nil
}

func (h *negotiation) list(opt uint32, data, out []byte) ([]byte, verdict, error) {
	if len(data) != 0 {
		return refuse(out, opt, errInvalid, "list takes no data"), negotiating, nil
	}
	entry := binary.BigEndian.AppendUint32(nil, uint32(len(h.name)))
	out = optReply(out, opt, repServer, append(entry, h.name...))
	return optReply(out, opt, repAck, nil), negotiating, nil
}

func (h *negotiation) structuredReply(opt uint32, data, out []byte) ([]byte, verdict, error) {
	if len(data) != 0 {
		return refuse(out, opt, errInvalid, "structured reply takes no data"), negotiating, nil
	}
	h.structured = true
	return optReply(out, opt, repAck, nil), negotiating, nil
}

// info answers INFO and GO, which differ only in what comes after. Block sizes are told whether they were asked for or
// not: a request that is no multiple of a sector is refused later.
func (h *negotiation) info(opt uint32, data, out []byte) ([]byte, verdict, error) {
	name, infos, ok := parseInfo(data)
	if !ok {
		return refuse(out, opt, errInvalid, "malformed request"), negotiating, nil
	}
	if !h.knows(name) {
		return refuse(out, opt, errUnknown, "no such export"), negotiating, nil
	}
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	b = binary.BigEndian.AppendUint64(b, uint64(h.size))
	out = optReply(out, opt, repInfo, binary.BigEndian.AppendUint16(b, h.transmissionFlags()))
	if slices.Contains(infos, infoName) {
		out = optReply(out, opt, repInfo, append(binary.BigEndian.AppendUint16(nil, infoName), h.name...))
	}
	b = binary.BigEndian.AppendUint16(nil, infoBlockSize)
	b = binary.BigEndian.AppendUint32(b, blockrepl.Sector)
	b = binary.BigEndian.AppendUint32(b, preferred)
	out = optReply(out, opt, repInfo, binary.BigEndian.AppendUint32(b, maxPayload))
	out = optReply(out, opt, repAck, nil)
	if opt == optGo {
		return out, transmit, nil
	}
	return out, negotiating, nil
}

func parseInfo(data []byte) (name string, infos []uint16, ok bool) {
	name, data, ok = takeString(data)
	if !ok || len(data) < 2 {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(data))
	data = data[2:]
	if n > maxInfos || len(data) != 2*n {
		return "", nil, false
	}
	for ; len(data) > 0; data = data[2:] {
		infos = append(infos, binary.BigEndian.Uint16(data))
	}
	return name, infos, true
}

// metaContext answers LIST_META_CONTEXT and SET_META_CONTEXT. The only context is base:allocation. LIST without a
// query asks for all there are, SET without one chooses none.
func (h *negotiation) metaContext(opt uint32, data, out []byte) ([]byte, verdict, error) {
	if !h.structured {
		return refuse(out, opt, errInvalid, "needs structured replies"), negotiating, nil
	}
	name, queries, ok := parseMeta(data)
	if !ok {
		return refuse(out, opt, errInvalid, "malformed request"), negotiating, nil
	}
	if !h.knows(name) {
		return refuse(out, opt, errUnknown, "no such export"), negotiating, nil
	}
	found := slices.Contains(queries, allocation)
	if opt == optListMeta {
		found = found || len(queries) == 0 || slices.Contains(queries, allocPrefix)
	}
	found = found && h.mapped
	if opt == optSetMeta {
		h.alloc = found
	}
	if found {
		id := uint32(allocID)
		if opt == optListMeta {
			id = 0 // reserved there
		}
		out = optReply(out, opt, repMetaContext, append(binary.BigEndian.AppendUint32(nil, id), allocation...))
	}
	return optReply(out, opt, repAck, nil), negotiating, nil
}

// parseMeta bounds the number of queries by the bytes they take before it makes room for any.
func parseMeta(data []byte) (name string, queries []string, ok bool) {
	name, data, ok = takeString(data)
	if !ok || len(data) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(data)
	data = data[4:]
	if uint64(n)*4 > uint64(len(data)) {
		return "", nil, false
	}
	for range n {
		var query string
		if query, data, ok = takeString(data); !ok {
			return "", nil, false
		}
		queries = append(queries, query)
	}
	return name, queries, len(data) == 0
}

// takeString takes a 32-bit length and that many bytes off data.
func takeString(data []byte) (s string, rest []byte, ok bool) {
	if len(data) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(data)
	data = data[4:]
	if n > maxName || int(n) > len(data) {
		return "", nil, false
	}
	return string(data[:n]), data[n:], true
}
