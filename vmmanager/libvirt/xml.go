package libvirt

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// element is one element of an XML text together with the bytes it covers:
// text[start:open] is its start tag and text[start:end] all of it. Of an empty element (<a/>) open is end. Offsets
// are into the text that was parsed: after one edit is applied they mean nothing any more, so all edits of a text
// are collected and applied at once.
type element struct {
	name     string // with its prefix, as written
	attrs    []xml.Attr
	start    int // the < of its start tag
	open     int
	end      int // behind its end tag
	children []*element
	text     string // character data directly inside
}

// parseXML reads an XML text into its only top element. Names keep their prefixes: namespaces are not resolved.
// Comments and processing instructions are skipped, and stay in the text, as it is only ever cut into.
func parseXML(text []byte) (*element, error) {
	dec := xml.NewDecoder(bytes.NewReader(text))
	root := &element{}
	stack := []*element{root}
	for {
		at := int(dec.InputOffset())
		token, err := dec.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read XML: %w", err)
		}
		top := stack[len(stack)-1]
		switch token := token.(type) {
		case xml.StartElement:
			child := &element{name: rawName(token.Name), attrs: slices.Clone(token.Attr), start: at,
				open: int(dec.InputOffset())}
			top.children = append(top.children, child)
			stack = append(stack, child)
		case xml.EndElement:
			if len(stack) == 1 || top.name != rawName(token.Name) {
				return nil, fmt.Errorf("read XML: </%s> closes nothing", rawName(token.Name))
			}
			top.end = int(dec.InputOffset())
			stack = stack[:len(stack)-1]
		case xml.CharData:
			top.text += string(token)
		}
	}
	if len(stack) != 1 || len(root.children) != 1 {
		return nil, errors.New("read XML: not exactly one element at the top")
	}
	return root.children[0], nil
}

// rawName is a name as it is written.
func rawName(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return n.Space + ":" + n.Local
}

// child returns the first child of that name, or nil; it may be called on nil. With several names it goes down,
// each time to the first of that name.
func (e *element) child(path ...string) *element {
	for _, name := range path {
		if e == nil {
			return nil
		}
		i := slices.IndexFunc(e.children, func(c *element) bool { return c.name == name })
		if i < 0 {
			return nil
		}
		e = e.children[i]
	}
	return e
}

// all returns the children of that name. It may be called on nil, too.
func (e *element) all(name string) []*element {
	var found []*element
	if e != nil {
		for _, c := range e.children {
			if c.name == name {
				found = append(found, c)
			}
		}
	}
	return found
}

// attr returns the value of an attribute, "" if it or the element is missing.
func (e *element) attr(name string) string {
	if e != nil {
		for _, a := range e.attrs {
			if rawName(a.Name) == name {
				return a.Value
			}
		}
	}
	return ""
}

// edit replaces text[from:to].
type edit struct {
	from, to int // bytes of the text that was parsed
	with     string
}

// apply returns text with the edits made; they must not overlap. Edits at the same place are made in the order of
// the list, which apply sorts.
func apply(text []byte, edits []edit) []byte {
	slices.SortStableFunc(edits, func(a, b edit) int { return a.from - b.from })
	var out bytes.Buffer
	at := 0
	for _, e := range edits {
		out.Write(text[at:e.from])
		out.WriteString(e.with)
		at = e.to
	}
	out.Write(text[at:])
	return out.Bytes()
}

// remove cuts an element out together with the white space before it, so that no empty line stays.
func remove(text []byte, e *element) edit {
	from := len(bytes.TrimRight(text[:e.start], " \t\r\n"))
	return edit{from: from, to: e.end}
}

// indent returns the white space in front of an element, from its line break on; "" if it does not begin a line.
func indent(text []byte, e *element) string {
	space := string(text[len(bytes.TrimRight(text[:e.start], " \t")):e.start])
	if !bytes.HasSuffix(text[:e.start-len(space)], []byte("\n")) {
		return ""
	}
	return "\n" + space
}

// retag rewrites the start tag of an element: attributes in set get that value
// (in place, or at the end), those in drop go, all others stay as they are. Values are unescaped in set and in e,
// and escaped in what is written. A tag that ends with /> still does.
func retag(text []byte, e *element, set []xml.Attr, drop ...string) edit {
	attrs := slices.DeleteFunc(slices.Clone(e.attrs), func(a xml.Attr) bool {
		return slices.Contains(drop, rawName(a.Name))
	})
	for _, s := range set {
		i := slices.IndexFunc(attrs, func(a xml.Attr) bool { return a.Name == s.Name })
		if i >= 0 {
			attrs[i].Value = s.Value
			continue
		}
		attrs = append(attrs, s)
	}
	tag := startTag(e.name, attrs)
	if bytes.HasSuffix(text[e.start:e.open], []byte("/>")) {
		tag += "/"
	}
	return edit{from: e.start, to: e.open, with: tag + ">"}
}

// startTag returns a start tag without its end, quoted the way libvirt does.
func startTag(name string, attrs []xml.Attr) string {
	var b strings.Builder
	b.WriteString("<" + name)
	for _, a := range attrs {
		b.WriteString(" " + rawName(a.Name) + "='" + escape(a.Value) + "'")
	}
	return b.String()
}

// set builds attributes from names and values in turn.
func set(pairs ...string) []xml.Attr {
	var attrs []xml.Attr
	for i := 0; i+1 < len(pairs); i += 2 {
		attrs = append(attrs, xml.Attr{Name: xml.Name{Local: pairs[i]}, Value: pairs[i+1]})
	}
	return attrs
}

// escape makes a value safe inside a quoted attribute.
func escape(value string) string {
	var b bytes.Buffer
	if err := xml.EscapeText(&b, []byte(value)); err != nil {
		return "" // a bytes.Buffer does not fail
	}
	return b.String()
}
