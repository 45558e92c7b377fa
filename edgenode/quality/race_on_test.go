//go:build race

package quality_test

// raceEnabled: under the race detector the engine is ten times slower, so that samples are taken.
const raceEnabled = true
