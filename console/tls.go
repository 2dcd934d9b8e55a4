package console

import "crypto/tls"

// tlsConfig is the node's own TLS 1.3 configuration with HTTP/2 offered.
func tlsConfig(id Identity) *tls.Config {
	c := id.Server().Clone()
	c.MinVersion = tls.VersionTLS13
	c.NextProtos = []string{"h2", "http/1.1"}
	return c
}
