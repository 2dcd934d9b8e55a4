package chaos

import (
	"errors"
	"strings"
	"testing"

	"duet/testbed/check"
)

// TestProofOfAReadBeforeItsWrite: a read of a value that is written only afterwards is shown, as any other violation.
func TestProofOfAReadBeforeItsWrite(t *testing.T) {
	ops := []check.Op{
		{Client: 1, Block: 3, Value: 7, Call: 10, Return: 20},
		{Client: 2, Block: 3, Value: 5, Write: true, Call: 30, Return: 40},
		{Client: 2, Block: 3, Value: 7, Write: true, Call: 50, Return: 60},
	}
	err := check.Linearizable(ops, 0)
	if err == nil {
		err = errors.New("block 3, is wrong")
	}
	if p := proof(ops, err); strings.Count(p, "\n") != 3 || !strings.Contains(p, "client 1 read  7") {
		t.Errorf("%v\n%s", err, p)
	}
}

// TestEarlyEndWaitsForCommands: an injection that ends early has no command under way any more.
func TestEarlyEndWaitsForCommands(t *testing.T) {
	s := injection{}
	begun, goOn := make(chan struct{}), make(chan struct{})
	s.commands.Go(func() {
		close(begun)
		<-goOn
		s.say("the command has ended")
	})
	<-begun
	said := make(chan []string)
	go func() { said <- s.over() }()
	close(goOn)
	if all := <-said; len(all) != 1 || !strings.HasSuffix(all[0], "the command has ended") {
		t.Errorf("%q", all)
	}
}
