package pki

import "duet/cluster/token"

// tokenPrefix begins the text of a join token; its pin is the fingerprint of the authority.
const tokenPrefix = "duet1"

// ParseToken reads a join token as it was printed.
func ParseToken(s string) (token.Token, error) { return token.Parse(tokenPrefix, s) }

// TokenStore keeps the records of a node. SetTokens replaces all of them and is
// durable when it returns.
type TokenStore interface {
	Tokens() ([]token.Record, error)
	SetTokens([]token.Record) error
}
