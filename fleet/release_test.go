package fleet_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestReleaseInvariants(t *testing.T) {
	good := func() fleet.Release {
		return fleet.Release{Kind: fleet.ReleaseNode, Version: "1.4.2", Digest: fleet.DigestOf([]byte("x")), Size: 1, Edges: []string{"1.4.1", "1.3.9"}}
	}
	for name, tc := range map[string]struct {
		change func(*fleet.Release)
		says   string
	}{
		"a whole release is good":              {func(*fleet.Release) {}, ""},
		"an unknown kind is refused":           {func(r *fleet.Release) { r.Kind = "firmware" }, "not a kind of release"},
		"a version has three numbers":          {func(r *fleet.Release) { r.Version = "1.4" }, "MAJOR.MINOR.PATCH"},
		"a version has no leading zeros":       {func(r *fleet.Release) { r.Version = "1.04.2" }, "MAJOR.MINOR.PATCH"},
		"a version has no pre-release":         {func(r *fleet.Release) { r.Version = "1.4.2-rc1" }, "MAJOR.MINOR.PATCH"},
		"an edge is a version":                 {func(r *fleet.Release) { r.Edges = []string{"latest"} }, "MAJOR.MINOR.PATCH"},
		"a release does not follow itself":     {func(r *fleet.Release) { r.Edges = []string{"1.4.2"} }, "cannot follow itself"},
		"an empty release is refused":          {func(r *fleet.Release) { r.Size = 0 }, "0 bytes"},
		"a release without digest is refused":  {func(r *fleet.Release) { r.Digest = "" }, "not a digest"},
		"a release of a new node has no edges": {func(r *fleet.Release) { r.Edges = nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := good()
			tc.change(&r)
			err := r.Validate()
			if tc.says == "" && err != nil || tc.says != "" && (!errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
}
