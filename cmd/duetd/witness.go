package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/cluster/enroll"
	"duet/cluster/witness"
	"duet/cmd/version"
)

const witnessUsage = `duetd witness is the third, tiny voter of a cluster: it holds no data and may
serve many clusters. It belongs on a third computer.

  duetd witness [--dir D] [--listen ADDR]      run it
  duetd witness token [--dir D] [--life 1h]    let one cluster register, once
  duetd witness list [--dir D]                 the clusters it serves
  duetd witness forget [--dir D] ID            end serving one

`

// witnessOptions are the flags of duetd witness.
type witnessOptions struct {
	dir, listen string
	life        time.Duration // of a token; for "token" only
}

// runWitness is duetd witness. With a verb it is a client of the running one, over a socket in its directory that
// only its own user and root can open; so it wants the same --dir, and makes nothing of --listen.
func runWitness(args []string) error {
	verb := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	var o witnessOptions
	f := flag.NewFlagSet("duetd witness", flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", "/var/lib/duet-witness", "`directory` of its key and store")
	f.StringVar(&o.listen, "listen", ":"+strconv.Itoa(cluster.DefaultWitnessPort), "`address` on which it serves clusters")
	f.DurationVar(&o.life, "life", enroll.Life, "how long a token is good")
	f.Usage = func() { fmt.Fprint(f.Output(), witnessUsage); f.PrintDefaults() }
	if err := f.Parse(args); err != nil {
		return usageError{err}
	}
	words := f.Args()
	// Both are usual: "witness token --life 1h" and "witness --life 1h token".
	if verb == "" && len(words) > 0 { // behind the flags
		verb, words = words[0], words[1:]
	}
	switch {
	case verb == "forget" && len(words) != 1:
		return usageError{errors.New("say which cluster to forget, by its ID: duetd witness list")}
	case verb == "forget":
		return o.print("forget", words[0])
	case len(words) > 0:
		return usageError{fmt.Errorf("%q is too much (--help shows what there is)", words[0])}
	case verb == "token" && o.life <= 0:
		return usageError{fmt.Errorf("--life %v: a token is good for a while, such as 1h", o.life)}
	}
	switch verb {
	case "":
		return serveWitness(o)
	case "token":
		return o.print("token", o.life)
	case "list":
		return o.print("list", nil)
	}
	return usageError{fmt.Errorf("duetd witness %s: there are token, list and forget", verb)}
}

// desk is the unix socket on which the running witness takes an admin's commands.
func (o witnessOptions) desk() string { return filepath.Join(o.dir, "witness.sock") }

// serveWitness runs until SIGTERM or SIGINT. The store's lock keeps a second witness from the directory before any
// port or socket is touched. Admins are cut off when clusters have had their last answers.
func serveWitness(o witnessOptions) error {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	db, err := badgerlog.Open(badgerlog.Config{Dir: filepath.Join(o.dir, "db"), Logger: log})
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	defer db.Close()
	s, err := witness.New(witness.Config{Dir: o.dir, Store: badgerlog.Values{Store: db}, Version: version.String(),
		Log: log})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("serve clusters: %w", err)
	}
	_ = os.Remove(o.desk()) // of a run that was killed; the store's lock says that no other lives
	desk, err := net.Listen("unix", o.desk())
	if err != nil {
		_ = ln.Close() // nothing was served
		return fmt.Errorf("serve admins: %w", err)
	}
	// Who can write to it can make a token and forget clusters.
	if err := os.Chmod(o.desk(), 0o600); err != nil {
		return errors.Join(err, ln.Close(), desk.Close())
	}
	srv := &http.Server{Handler: deskHandler(s), ReadHeaderTimeout: 5 * time.Second}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(desk); !errors.Is(err, http.ErrServerClosed) {
			log.Error("admins are not served any more", "err", err)
		}
	})
	log.Info("witness runs", "version", version.String(), "dir", o.dir, "listen", ln.Addr().String(), "key",
		s.Fingerprint().String())
	// The port is open: what connects from here on waits for Serve.
	wg.Go(func() { ready(ctx, log) })
	err = s.Serve(ctx, ln)
	stop()
	_ = srv.Close() // its calls are short
	wg.Wait()
	return err
}

// deskHandler serves token, list and forget. The answer is text for the admin's terminal, a refusal 422 with a
// sentence. Forgetting a cluster drops its votes; one that still uses the witness has to register anew, with a
// token.
func deskHandler(s *witness.Server) http.Handler {
	mux := http.NewServeMux()
	handle := func(name string, fn func(in json.RawMessage) (string, error)) {
		mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
			in, err := io.ReadAll(io.LimitReader(r.Body, 4096))
			var out string
			if err == nil {
				out, err = fn(in)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusUnprocessableEntity)
				return
			}
			_, _ = io.WriteString(w, out) // the admin sees what is missing
		})
	}
	handle("token", func(in json.RawMessage) (string, error) {
		var life time.Duration
		if err := json.Unmarshal(in, &life); err != nil {
			return "", err
		}
		t, err := s.NewToken(life)
		return fmt.Sprintf("%s\nGood once, for %v. On a node: duet cluster witness add ADDRESS:PORT --token %s\n", t, life,
			t), err
	})
	handle("list", func(json.RawMessage) (string, error) {
		var b strings.Builder
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "ID\tCLUSTER\tSINCE\tMODULES")
		for _, c := range s.Clusters() {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\n", c.ID, c.Name, c.Since.Local().Format("2006-01-02 15:04"), c.Modules)
		}
		err := t.Flush()
		return b.String(), err
	})
	handle("forget", func(in json.RawMessage) (string, error) {
		var id string
		if err := json.Unmarshal(in, &id); err != nil {
			return "", err
		}
		err := s.Forget(id)
		if errors.Is(err, witness.ErrUnknownCluster) {
			err = fmt.Errorf("there is no cluster %q here: duetd witness list", id)
		}
		return "Forgotten.\n", err
	})
	return mux
}

// print has the running witness do something and prints what it says, whole or not at all: on standard output, but for
// what it says beside a token. A refusal is the error. It gives up after ten seconds.
func (o witnessOptions) print(what string, in any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", o.desk())
	}
	c := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := c.Post("http://witness/"+what, "application/json", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("no witness answers for --dir %s: `systemctl start duetd-witness` starts that of the package, "+
			"\"duetd witness %s\" with --dir asks another (%w)", o.dir, what, cluster.Worded(err))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(text)))
	}
	if err != nil {
		return cluster.Worded(err)
	}
	// A token is alone on standard output, so that a script can keep it.
	out, hint := string(text), ""
	if what == "token" {
		out, hint, _ = strings.Cut(out, "\n")
		out += "\n"
	}
	if _, err := io.WriteString(os.Stdout, out); err != nil {
		return err
	}
	_, err = io.WriteString(os.Stderr, hint)
	return err
}
