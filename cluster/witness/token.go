package witness

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// TokenLife is how long a token is good for by default.
const TokenLife = time.Hour

const (
	tokenPrefix = "duetw1"
	secretSize  = 20 // bytes
)

// ErrToken is returned for text that is no token.
var ErrToken = errors.New("malformed witness token")

// Fingerprint names a witness: SHA-256 of its public key (SubjectPublicKeyInfo).
// Its text, also in JSON, is hexadecimal.
type Fingerprint [sha256.Size]byte

// String is the text form.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// MarshalText implements encoding.TextMarshaler.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Fingerprint) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(b))
	if err != nil || len(raw) != len(f) {
		return fmt.Errorf("fingerprint of a witness: need %d hexadecimal digits", 2*len(f))
	}
	copy(f[:], raw)
	return nil
}

// Token lets one cluster register: Secret proves it to the witness, Key is the
// fingerprint by which it knows the witness.
type Token struct {
	Secret []byte
	Key    Fingerprint
}

func tokenText() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// String is the printed form: duetw1.<secret>.<fingerprint>.
func (t Token) String() string {
	return tokenPrefix + "." + tokenText().EncodeToString(t.Secret) + "." + tokenText().EncodeToString(t.Key[:])
}

// ParseToken reads the printed form; surrounding space and capital letters do not matter.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(strings.ToLower(strings.TrimSpace(s)), ".")
	if len(parts) != 3 || parts[0] != tokenPrefix {
		return Token{}, fmt.Errorf("%w: it looks like %s.SECRET.FINGERPRINT; copy it whole", ErrToken, tokenPrefix)
	}
	secret, err1 := tokenText().DecodeString(parts[1])
	key, err2 := tokenText().DecodeString(parts[2])
	if err1 != nil || err2 != nil || len(secret) != secretSize || len(key) != sha256.Size {
		return Token{}, fmt.Errorf("%w: a part is damaged or missing; copy it whole", ErrToken)
	}
	t := Token{Secret: secret, Key: Fingerprint(key)}
	if t.String() != strings.Join(parts, ".") { // spare bits of the last letter
		return Token{}, fmt.Errorf("%w: a letter is wrong; copy it whole", ErrToken)
	}
	return t, nil
}

// tokenRecord is what a witness remembers of a token; the secret is not in it.
type tokenRecord struct {
	Hash    []byte    `json:"hash"` // SHA-256 of the secret
	Expires time.Time `json:"expires"`
	UsedBy  []byte    `json:"used_by,omitempty"` // digest of the registration that used it; nil while unused
}

func newToken(key Fingerprint, expires time.Time) (Token, tokenRecord) {
	t := Token{Secret: make([]byte, secretSize), Key: key}
	rand.Read(t.Secret)
	hash := sha256.Sum256(t.Secret)
	return t, tokenRecord{Hash: hash[:], Expires: expires}
}

// findToken returns the index of the record of secret, or -1. It takes the same
// time whatever the secret is.
func findToken(records []tokenRecord, secret []byte) int {
	hash := sha256.Sum256(secret)
	found := -1
	for i, r := range records {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(r.Hash, hash[:]), i, found)
	}
	return found
}

// freshTokens drops records that ended a day ago; until then they can still tell a
// latecomer what is wrong with the token.
func freshTokens(records []tokenRecord, now time.Time) []tokenRecord {
	return slices.DeleteFunc(records, func(r tokenRecord) bool { return now.Sub(r.Expires) > 24*time.Hour })
}

// usedBy tells whether this very registration has used the token before: its
// answer was lost on the way, and it may have it again.
func (r tokenRecord) usedBy(digest []byte) bool { return bytes.Equal(r.UsedBy, digest) }

const (
	maxTries = 10
	penalty  = time.Minute
)

// tries slows down whoever guesses secrets: ten wrong ones within a minute close
// the registration for a minute.
type tries struct {
	wrong   []time.Time // the last wrong tries, oldest first
	refused time.Time   // no tries before this
}

func (t *tries) check(now time.Time) error {
	if now.Before(t.refused) {
		return fmt.Errorf("%w: try again in %d s", ErrTooManyTries, int(t.refused.Sub(now).Seconds())+1)
	}
	return nil
}

func (t *tries) count(now time.Time) {
	t.wrong = append(t.wrong, now)
	if len(t.wrong) < maxTries {
		return
	}
	if now.Sub(t.wrong[0]) <= penalty {
		t.refused, t.wrong = now.Add(penalty), nil
		return
	}
	t.wrong = t.wrong[1:]
}
