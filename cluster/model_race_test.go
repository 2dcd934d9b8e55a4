//go:build race

package cluster

// raceDetector says that everything takes ten times as long.
const raceDetector = true
