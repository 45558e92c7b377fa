package backup

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// The name of a backup says whose it is, when it was taken and what it includes, so that a listing is all that a new
// leader, or an operator who has nothing else left, needs.
const stamp = "20060102T150405Z"

var named = regexp.MustCompile(`^edgefleet-(.+)-(\d{8}T\d{6}Z)-(\d{12,20})\.snapshot$`)

func nameOf(c fleet.ClusterID, b fleet.Backup) string {
	return fmt.Sprintf("edgefleet-%s-%s-%012d.snapshot", c, b.Time.UTC().Format(stamp), b.Index)
}

// parseName reads the name of a backup of cluster c; other files are not ours.
func parseName(c fleet.ClusterID, name string) (fleet.Backup, bool) {
	m := named.FindStringSubmatch(name)
	if m == nil || m[1] != string(c) {
		return fleet.Backup{}, false
	}
	t, err := time.Parse(stamp, m[2])
	if err != nil {
		return fleet.Backup{}, false
	}
	index, err := strconv.ParseUint(m[3], 10, 64)
	return fleet.Backup{Name: name, Time: t, Index: index}, err == nil
}

func older(a, b fleet.Backup) int {
	return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Index, b.Index))
}
