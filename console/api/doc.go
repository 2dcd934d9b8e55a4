// Package api is the HTTP face of a node: the JSON types, the handlers over a
// Backend and the OpenAPI document generated from both. The command line and
// every other tool use it; a node serves it on a local unix socket and over TLS.
//
// What takes minutes is a Task, and what an order leads to is seen in Status; CheckProtect alone waits for a dry run of
// the peer's hypervisor. What a call is refused for is one of the kinds of backend.go, which StatusOf and KindOf
// translate, so that errors.Is means the same on both sides. Rights are package console's.
//
// The text of a doc tag is what the OpenAPI document says of a field; it is not repeated in a comment.
//
//	backend.go   what a node has to do, by rooms
//	handler.go   the calls: paths, inputs, which statuses; help.go those for when something is wrong
//	types.go     what goes to and fro
//	verdict.go   how it all stands, in a level and a sentence: pure
//	module.go    how one module stands, and what of that is proven
//	picture.go   what is found in a Status
//	errors.go    kinds of failure and HTTP statuses
//
// A new call is a method of Backend, an operation in handler.go, a method of package client and one of apitest.
package api
