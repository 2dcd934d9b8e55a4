package console

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"duet/cluster"
)

const (
	tokenBytes = 32 // of randomness
	minToken   = 32 // characters of a token that an admin wrote himself
)

// ErrOpenToken is returned when others than its owner may read the token's file.
var ErrOpenToken = errors.New("token file can be read by others")

// guard lets in who has shown the token or a certificate of the cluster. It does not change, and any goroutine asks
// it. The token of a running node stays: a file that is exchanged counts from the next start.
type guard struct {
	token string
	peer  func(tls.ConnectionState) (cluster.NodeID, bool)
}

// only serves h to those. The others get 401 as a problem document and nothing of h; which of the two was wrong is
// not said.
func (g guard) only(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.who(r) == "" {
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintln(w, `{"title":"Unauthorized","status":401,"detail":"show the token of this node, or a certificate of its cluster"}`)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// who names the caller, empty for one who may not call. A certificate counts before the token.
func (g guard) who(r *http.Request) string {
	if r.TLS != nil {
		if node, ok := g.peer(*r.TLS); ok {
			return "node " + string(node)
		}
	}
	scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") && same(strings.TrimSpace(shown), g.token) {
		return "token"
	}
	return ""
}

// same compares in a time that tells nothing, not even lengths.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// token reads the token in file, or makes one there if the file is missing. A file that others may read is refused,
// not mended: they may have the token by now.
func token(file string) (string, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return newToken(file)
	}
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	if readableByOthers(info) {
		return "", fmt.Errorf("read token: %w: remove %s, a new one is made at the next start", ErrOpenToken, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if len(t) < minToken {
		return "", fmt.Errorf("read token: %s has less than %d characters: remove it, a new one is made at the next start",
			file, minToken)
	}
	return t, nil
}

// newToken makes a token; the file appears whole or not at all, mode 0600.
func newToken(file string) (string, error) {
	b := make([]byte, tokenBytes)
	rand.Read(b) // never fails
	t := hex.EncodeToString(b)
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return "", fmt.Errorf("make token: %w", err)
	}
	defer os.Remove(f.Name()) // nothing is left to remove after the rename
	_, err = f.WriteString(t + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return "", fmt.Errorf("make token: %w", err)
	}
	return t, nil
}
