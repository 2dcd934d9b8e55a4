package blockrepl

import (
	"context"
	"errors"
	"testing"
)

func newLink() *link {
	l := &link{}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Where a write has to be beside this node: the rule of attachment.has, and of lacks.
func TestAttachmentHas(t *testing.T) {
	one, two := newLink(), newLink()
	for name, c := range map[string]struct {
		peer       attachment
		f          flight
		alone      bool
		has, lacks bool
	}{
		"sent":                     {attachment{link: one}, flight{sent: one}, false, false, false},
		"acknowledged":             {attachment{link: one}, flight{sent: one, acked: one}, false, true, false},
		"not sent":                 {attachment{link: one}, flight{}, false, false, true},
		"acknowledged by the last": {attachment{link: two}, flight{sent: one, acked: one}, false, false, true},
		"sent again":               {attachment{link: two}, flight{sent: two, acked: one}, false, false, false},
		"lost after that":          {attachment{}, flight{sent: one, acked: one}, false, true, false},
		"lost while sent again":    {attachment{}, flight{sent: two, acked: one}, false, false, false},
		"lost before":              {attachment{}, flight{sent: one}, false, false, false},
		"lost before, alone":       {attachment{}, flight{sent: one}, true, true, false},
		"alone, socket still open": {attachment{parting: true}, flight{sent: one}, true, false, false},
		"never sent, alone":        {attachment{}, flight{}, true, true, false},
	} {
		if has, lacks := c.peer.has(&c.f, c.alone), c.peer.lacks(&c.f); has != c.has || lacks != c.lacks {
			t.Errorf("%s: has %v, lacks %v", name, has, lacks)
		}
	}
}

// A link ends once, with its calls, and the next peer comes when it is closed.
func TestAttachmentPart(t *testing.T) {
	l := newLink()
	c := &call{done: make(chan error, 1)}
	l.window.add(pending{call: c, sent: 1})
	a := attachment{link: l}
	if a.vacant() {
		t.Fatal("two peers")
	}
	a.part(l)
	if err := <-c.done; !errors.Is(err, errLinkLost) || l.ctx.Err() == nil || !a.parting {
		t.Fatal(err, a)
	}
	if a.parted(); a.parting || !a.vacant() {
		t.Fatal("no place for the next")
	}
	if a.greeting(true); a.vacant() {
		t.Fatal("two handshakes")
	}
	a.link = newLink()
	if l := a.cut(); l.ctx.Err() == nil || a.link != nil || a.cut() != nil {
		t.Fatal("cut twice, or not at all")
	}
}
