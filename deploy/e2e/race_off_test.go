//go:build !race

package e2e_test

// race says that the programs are built with the race detector, as this test is.
const race = false
