//go:build !race

package e2e_test

import "time"

const (
	// race says that the programs are built with the race detector, as this test is.
	race = false
	// patience is how long a test waits for something that takes a fraction of it.
	patience = 60 * time.Second
)
