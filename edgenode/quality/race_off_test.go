//go:build !race

package quality_test

// raceEnabled: see the other file.
const raceEnabled = false
