// Package appmodules says what is protected and how: the configuration of a
// module, its roles, and the state machines as tables of transitions.
//
// Everything here is a value or a pure function. The machine of a mirror knows
// nothing of epochs, disks or hypervisors: it is told Facts and names Actions;
// package engine computes the facts and carries the actions out, one goroutine a
// module.
package appmodules
