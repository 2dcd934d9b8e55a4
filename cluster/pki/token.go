package pki

import "duet/cluster/enroll"

// tokenPrefix begins the text of a join token; its pin is the fingerprint of the authority.
const tokenPrefix = "duet1"

// ParseToken reads a join token as it was printed.
func ParseToken(s string) (enroll.Token, error) { return enroll.Parse(tokenPrefix, s) }
