package controlplane

import (
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/edgefleet/edgefleet/fleet"
)

// checkOwner refuses root in the data directory of another user, the service's: that user could not read what root leaves
// there, and the member would not start.
func (c Config) checkOwner() error {
	info, err := os.Stat(c.DataDir)
	if err != nil || os.Geteuid() != 0 {
		return nil //nolint:nilerr // whoever needs the directory says what is wrong with it
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	name := strconv.FormatUint(uint64(st.Uid), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return fleet.NewError(fleet.ErrDenied, "data_dir", "%s belongs to user %s, who could not read what root writes there: run this as that user, with 'sudo -u %[2]s controlplane …'", c.DataDir, name)
}
