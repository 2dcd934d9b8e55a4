package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"duet/appmodules"
	"duet/appmodules/config"
	"duet/console/api"
	"duet/docs"
)

// explained is what "explain" says of a word.
type explained struct {
	Word     string         `json:"word"`           // as it was asked for
	Text     string         `json:"text,omitempty"` // none where only troubles have the word
	Troubles []docs.Trouble `json:"troubles,omitempty"`
}

// explainCommand needs no daemon: it has the glossary and the table of troubles in it (package docs), of its own
// release. A word without an explanation is exit 1, with those that look like it.
func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain [WORD] [STATUS]", Short: "Explain a word or a state, such as epoch or WAIT NotReady, or list them",
		Args: args("[WORD]", "[STATUS]"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return explainable(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: a.do(func(_ context.Context, args []string) error {
			if len(args) == 0 {
				return a.say(explainable(), "%s", strings.Join(explainable(), "\n"))
			}
			word := strings.Join(args, " ")
			e := explain(word)
			if e.Text == "" && len(e.Troubles) == 0 {
				return fmt.Errorf("%q has no explanation%s `duet explain` lists the words that have one, `duet config explain` "+
					"the keys of a module", word, cmp.Or(api.Meant(word, explainable()), ":"))
			}
			return a.emit(e, func(w io.Writer) error { return writeExplained(w, e) })
		}),
	}
}

// states are what status shows, in words; the troubles say what to do about those that are not as they should be.
var states = map[string]string{
	"STOP": "stopped: by an operator, because its VM ended and the policy is to stop it then, or because it does not " +
		"start; the VM is off here",
	"WAIT":  "it would run here or follow, and something is missing that the sentence in status names; the VM is off",
	"ALONE": "it runs here, on one copy: the other host has none, or an older one",
	"PRIM": "it runs here, and what it writes goes to both hosts; the second copy is whole, and may take over, when " +
		"SECOND is Ready beside it",
	"SECOND": "it runs on the other host, and this one gets what it writes; Ready: the copy is whole, and may take over " +
		"from PRIM Ready",
	"UP":        "it runs here, beside the other nodes of a farm",
	"READY":     "this node does what its role says; PRIM Ready alone does not say that the second copy is whole",
	"TRANSIENT": "on the way: opening, starting, catching up, waiting for the right to go on",
	"NOTREADY":  "it does not get on by itself: the sentence in status says what would change that",
	"REMOVED": "this node was taken off the cluster while it was away, and nothing starts here: `systemctl stop duetd`, " +
		"then `duet cluster rejoin ADDRESS --token T` brings it back, `duet cluster leave` ends it here; what it had is kept",
	"LEAVING": "duetd stops or was stopped on that host, as for an update or a reboot: its VMs run or stand still there " +
		"until it is started; after half a minute the other host may take them over, where something decides",
	"OVERDUE": "the heartbeats of that host are late, and it is too early to take it for dead: what it said last proves " +
		"nothing meanwhile",
	"?": "that host does not answer, or its word is overdue: beside it stands what it was when it was last heard; look " +
		"at the host",
	"OK": "everything runs that an operator has not stopped, or that its guest has not by shutting down, and its data " +
		"are on both hosts; what is to be mended beside it takes nothing away yet",
	"DEGRADED": "everything runs, but not on two copies, or something is wrong, or nobody decides for it when the hosts " +
		"lose each other: the sentence beside it says what",
	"DOWN": "something does not run that was not stopped by Duet or by its guest: the sentence beside it says what, and " +
		"the line below its module why",
	"SYNC": "how much of a resync has been compared, and how fast: what is dirty (DIRTY), what was being written when a " +
		"host died, and all of a first copy; what differs is sent",
}

// explain looks a word up, whatever its case: a state or two words of status first, then the glossary, then the
// troubles that are about it, or that are it. What is not known has neither text nor troubles.
func explain(word string) explained {
	e := explained{Word: word, Text: states[strings.ToUpper(word)]}
	// A state is two words in the status; either may be asked for alone.
	role, status, both := strings.Cut(word, " ")
	if is, as := states[strings.ToUpper(role)], states[strings.ToUpper(status)]; both && is != "" && as != "" {
		e.Text, word = is+"; "+status+": "+as, role // as status shows it
	}
	for _, w := range docs.Words() {
		if e.Text == "" && strings.EqualFold(w.Name, word) {
			e.Text = w.Text
		}
	}
	for _, t := range docs.Troubles() {
		if e.Text != "" && about(t, word) || strings.EqualFold(t.See, word) {
			e.Troubles = append(e.Troubles, t)
		}
	}
	return e
}

// about: what is seen in a trouble begins with the word, or has it in its sentence.
func about(t docs.Trouble, word string) bool {
	isEnd := func(r rune) bool { return !unicode.IsLetter(r) && r != '-' }
	see := strings.FieldsFunc(t.See, isEnd)
	if states[strings.ToUpper(word)] != "" { // other troubles may name it by the way
		see = see[:min(1, len(see))]
	}
	return slices.ContainsFunc(see, func(w string) bool { return strings.EqualFold(w, word) })
}

// explainable are all words that have a text, sorted, each once.
func explainable() []string {
	var out []string
	for _, w := range docs.Words() {
		out = append(out, w.Name)
	}
	for s := range states {
		out = append(out, s)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// writeExplained writes the text, then each trouble with what to do.
func writeExplained(w io.Writer, e explained) error {
	var b strings.Builder
	if e.Text != "" {
		fmt.Fprintf(&b, "%s: %s\n", e.Word, e.Text)
	}
	for _, t := range e.Troubles {
		fmt.Fprintf(&b, "\n%s\n  because: %s\n  do:      %s\n", t.See, t.Because, t.Do)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// explainKeyCommand explains the keys of a module's configuration, as this program knows them: the daemon may be of
// another release.
func (a *app) explainKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain [KEY]", Short: "Explain a key of a module's configuration, such as policy.restart, or all",
		Args: args("[KEY]"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.do(func(_ context.Context, args []string) error {
			keys := keysUnder(strings.Join(args, ""))
			if len(keys) == 0 {
				return noKey(args[0])
			}
			return a.emit(keys, func(w io.Writer) error {
				t := table{head: []string{"KEY", "DEFAULT", "VALUES", "MEANING"}}
				for _, k := range keys {
					t.add(cell{k.Path, bold}, cell{text: k.Default}, cell{text: k.Values}, cell{text: k.Text})
				}
				return t.write(w, a.color())
			})
		}),
	}
}

// explainedKey is what "config explain" says of a key.
type explainedKey struct {
	appmodules.Key
	Default string // "" where there is none
	Values  string // what it may be, as whoever validates says; "" where Text does
}

// noKey says that there is no such key, and which one may be meant. A key that has keys is one.
func noKey(path string) error {
	var all []string
	for _, k := range keysUnder("") {
		for p := k.Path; p != ""; p = p[:max(0, strings.LastIndex(p, "."))] {
			all = append(all, p)
		}
	}
	return fmt.Errorf("there is no key %q%s `duet config explain` lists them", path, cmp.Or(api.Meant(path, all), ":"))
}

// keysUnder are the keys of every kind at a path or below it; "" is the root of all. A key of a list goes on with
// "[".
func keysUnder(path string) (found []explainedKey) {
	all := slices.Clone(appmodules.CommonKeys)
	for _, k := range appmodules.Kinds() {
		about, err := appmodules.Kind(k).About()
		if err == nil {
			all = append(all, about.Keys...)
		}
	}
	for _, k := range all {
		if path == "" || k.Path == path || strings.HasPrefix(k.Path, path+".") || strings.HasPrefix(k.Path, path+"[") {
			found = append(found, explainedKey{k, config.Initial(k.Path), appmodules.Values(k.Path)})
		}
	}
	return found
}
