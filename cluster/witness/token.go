package witness

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"duet/cluster/enroll"
)

// tokenPrefix begins the text of a token; its pin is the Fingerprint of the witness.
const tokenPrefix = "duetw1"

// ParseToken reads a witness's token as it was printed.
func ParseToken(s string) (enroll.Token, error) { return enroll.Parse(tokenPrefix, s) }

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
