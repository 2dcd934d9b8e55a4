// Package api is the HTTP face of a node: the JSON types, the handlers over a
// Backend and the OpenAPI document generated from both. The command line and
// every other tool use it; a node serves it on a local unix socket and over TLS.
package api
