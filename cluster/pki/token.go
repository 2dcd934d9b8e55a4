package pki

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

// TokenLife is how long a join token is good for by default.
const TokenLife = time.Hour

const (
	tokenPrefix = "duet1"
	secretSize  = 20 // bytes
)

// ErrToken is returned for text that is no token.
var ErrToken = errors.New("malformed join token")

// Token lets one node join: Secret proves it to the cluster, CA is the
// fingerprint by which it knows the cluster.
type Token struct {
	Secret []byte
	CA     [sha256.Size]byte
}

func tokenText() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// String is the printed form: duet1.<secret>.<fingerprint>.
func (t Token) String() string {
	return tokenPrefix + "." + tokenText().EncodeToString(t.Secret) + "." + tokenText().EncodeToString(t.CA[:])
}

// ParseToken reads the printed form; surrounding space and capital letters do not matter.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(strings.ToLower(strings.TrimSpace(s)), ".")
	if len(parts) != 3 || parts[0] != tokenPrefix {
		return Token{}, fmt.Errorf("%w: it looks like %s.SECRET.FINGERPRINT; copy it whole", ErrToken, tokenPrefix)
	}
	secret, err1 := tokenText().DecodeString(parts[1])
	ca, err2 := tokenText().DecodeString(parts[2])
	if err1 != nil || err2 != nil || len(secret) != secretSize || len(ca) != sha256.Size {
		return Token{}, fmt.Errorf("%w: a part is damaged or missing; copy it whole", ErrToken)
	}
	t := Token{Secret: secret, CA: [sha256.Size]byte(ca)}
	if t.String() != strings.Join(parts, ".") { // spare bits of the last letter
		return Token{}, fmt.Errorf("%w: a letter is wrong; copy it whole", ErrToken)
	}
	return t, nil
}

// TokenRecord is what a node remembers of a token it made; the secret is not in it.
type TokenRecord struct {
	Hash    []byte    `json:"hash"` // SHA-256 of the secret
	Expires time.Time `json:"expires"`
	UsedBy  []byte    `json:"used_by,omitempty"` // digest of the join that used it; nil while unused
}

// TokenStore keeps the records of a node. SetTokens replaces all of them and is
// durable when it returns.
type TokenStore interface {
	Tokens() ([]TokenRecord, error)
	SetTokens([]TokenRecord) error
}

func newSecret() []byte {
	b := make([]byte, secretSize)
	rand.Read(b)
	return b
}

// find returns the index of the record of secret, or -1. It takes the same time
// whatever the secret is.
func find(records []TokenRecord, secret []byte) int {
	hash := sha256.Sum256(secret)
	found := -1
	for i, r := range records {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(r.Hash, hash[:]), i, found)
	}
	return found
}

// fresh drops records that ended a day ago; until then they can still tell a
// latecomer what is wrong with his token.
func fresh(records []TokenRecord, now time.Time) []TokenRecord {
	return slices.DeleteFunc(slices.Clone(records), func(r TokenRecord) bool {
		return now.Sub(r.Expires) > 24*time.Hour
	})
}

// usedBy tells whether this very join has used the token before: its answer was
// lost on the way, and it may have it again.
func (r TokenRecord) usedBy(digest []byte) bool { return bytes.Equal(r.UsedBy, digest) }
