// Package lb is the vocabulary of the network face of modules: which node answers
// for a virtual address and which share of the clients it serves. Farm modules and
// virtual addresses of application modules build on it; VM modules do not need it,
// since a guest keeps its own address wherever it runs.
package lb
