package enroll

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Life is how long a token is good for by default.
const Life = time.Hour

// secretSize is in bytes.
const secretSize = 20

// ErrMalformed is returned for text that is no token.
var ErrMalformed = errors.New("malformed token")

// Token proves by Secret that its bearer may come in, and by Pin, the fingerprint of
// what is behind the door, that it is the right door.
type Token struct {
	Prefix string // says what it is for
	Secret []byte
	Pin    [sha256.Size]byte
}

// Record is what is remembered of a Token; the secret is not in it.
type Record struct {
	Hash    []byte    `json:"hash"` // SHA-256 of the secret
	Expires time.Time `json:"expires"`
	UsedBy  []byte    `json:"used_by,omitempty"` // digest of the request that used it; nil while unused
}

// New makes a token and its record.
func New(prefix string, pin [sha256.Size]byte, expires time.Time) (Token, Record) {
	t := Token{Prefix: prefix, Secret: make([]byte, secretSize), Pin: pin}
	rand.Read(t.Secret)
	hash := sha256.Sum256(t.Secret)
	return t, Record{Hash: hash[:], Expires: expires}
}

func letters() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// String is the printed form: prefix.secret.pin.
func (t Token) String() string {
	return t.Prefix + "." + letters().EncodeToString(t.Secret) + "." + letters().EncodeToString(t.Pin[:])
}

// Parse reads the printed form of a token with that prefix; surrounding space and capital letters do not matter.
func Parse(prefix, s string) (Token, error) {
	parts := strings.Split(strings.ToLower(strings.TrimSpace(s)), ".")
	if len(parts) != 3 || parts[0] != prefix {
		return Token{}, fmt.Errorf("%w: it looks like %s.SECRET.FINGERPRINT; copy it whole", ErrMalformed, prefix)
	}
	secret, err1 := letters().DecodeString(parts[1])
	pin, err2 := letters().DecodeString(parts[2])
	if err1 != nil || err2 != nil || len(secret) != secretSize || len(pin) != sha256.Size {
		return Token{}, fmt.Errorf("%w: a part is damaged or missing; copy it whole", ErrMalformed)
	}
	t := Token{Prefix: prefix, Secret: secret, Pin: [sha256.Size]byte(pin)}
	if t.String() != strings.Join(parts, ".") { // spare bits of the last letter
		return Token{}, fmt.Errorf("%w: a letter is wrong; copy it whole", ErrMalformed)
	}
	return t, nil
}

// find returns the index of the record of secret, or -1. It takes the same time
// whatever the secret is.
func find(records []Record, secret []byte) int {
	hash := sha256.Sum256(secret)
	found := -1
	for i, r := range records {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(r.Hash, hash[:]), i, found)
	}
	return found
}

// fresh returns the records without those that ended a day ago; until then they can
// still tell a latecomer what is wrong with the token.
func fresh(records []Record, now time.Time) []Record {
	return slices.DeleteFunc(slices.Clone(records), func(r Record) bool { return now.Sub(r.Expires) > 24*time.Hour })
}

// used reports whether this very request has used the token before: its answer was lost
// on the way, and it may have it again.
func (r Record) used(digest []byte) bool { return len(digest) > 0 && bytes.Equal(r.UsedBy, digest) }
