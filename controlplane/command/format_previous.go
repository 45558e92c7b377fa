//go:build previous

package command

// Format is that of the build before this one, for tests of the upgrade.
const Format = 1
