//go:build !race

package sim

// raced: the race detector makes everything twenty times slower.
const raced = false
