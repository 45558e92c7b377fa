package identity

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// membersFile holds the members' addresses as the worker's session learned them last.
const membersFile = "members.json"

// maxMembers bounds what is kept of a list of members.
const maxMembers = 64

// LearnedMembers are the members that SaveMembers stored in dir; none if there is no usable file, which is no error: the
// file is a hint, enrolment and configuration name members too.
func LearnedMembers(dir string) []fleet.Endpoints {
	b, err := os.ReadFile(filepath.Join(dir, membersFile))
	var list []fleet.Endpoints
	if err != nil || json.Unmarshal(b, &list) != nil {
		return nil
	}
	return UsableMembers(list)
}

// SaveMembers stores the addresses for the next start, and for renewals.
func SaveMembers(dir string, list []fleet.Endpoints) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save members: %w", err)
	}
	b, err := json.MarshalIndent(UsableMembers(list), "", " ")
	if err != nil {
		return fmt.Errorf("save members: %w", err)
	}
	return writeFile(dir, membersFile, b)
}

// UsableMembers keeps the entries that have the shape of addresses, as host:port without a scheme.
func UsableMembers(list []fleet.Endpoints) []fleet.Endpoints {
	var out []fleet.Endpoints
	for _, e := range list[:min(len(list), maxMembers)] {
		e.API, e.NATS = address(e.API), address(e.NATS)
		if e.API != "" || e.NATS != "" {
			out = append(out, e)
		}
	}
	return out
}

// address is host:port, or empty when s is neither that nor a URL of it.
func address(s string) string {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	s = strings.TrimSuffix(s, "/")
	if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" || strings.ContainsAny(s, "/?#@ ") {
		return ""
	}
	return s
}
