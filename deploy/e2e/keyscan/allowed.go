package keyscan

import (
	"path"
	"slices"
)

// Allowed is a place where secrets of some classes have to be.
type Allowed struct {
	// Path is a pattern of path.Match, for what findings name.
	Path    string
	Classes []string
	// Reason says why it has to be there.
	Reason string
}

// Judge returns the findings that no entry of the table allows, and the entries' classes that allowed nothing: one that is
// not needed any more would hide what is found there one day.
func Judge(found []Finding, table []Allowed) (leaks []Finding, unused []Allowed) {
	used := make([]map[string]bool, len(table))
	for i := range used {
		used[i] = map[string]bool{}
	}
	for _, f := range found {
		allowed := false
		for i, a := range table {
			if ok, err := path.Match(a.Path, f.Where); err == nil && ok && slices.Contains(a.Classes, f.Class) {
				used[i][f.Class], allowed = true, true
			}
		}
		if !allowed {
			leaks = append(leaks, f)
		}
	}
	for i, a := range table {
		left := slices.DeleteFunc(slices.Clone(a.Classes), func(c string) bool { return used[i][c] })
		if len(left) > 0 {
			a.Classes = left
			unused = append(unused, a)
		}
	}
	return leaks, unused
}
