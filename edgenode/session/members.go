package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/edgefleet/edgefleet/fleet"
)

// membersFile holds the addresses as last learned; supervisors read it too, see LearnedMembers.
const membersFile = "members.json"

// maxMembers bounds what a head set may name.
const maxMembers = 64

// members are the addresses of the control plane.
type members struct {
	dir   string
	fixed []string
	log   *slog.Logger

	mu   sync.Mutex
	list []fleet.Endpoints
	// next rotates the member that is asked first, so that one that hangs costs every other poll only.
	next int
}

func openMembers(o Options) (*members, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open session directory: %w", err)
	}
	m := &members{dir: o.Dir, fixed: o.ControlPlane, log: o.Telemetry.Logger, list: LearnedMembers(o.Dir)}
	if len(m.list) == 0 {
		m.list = usable(o.Members)
	}
	return m, nil
}

// LearnedMembers are the members that a session in dir learned last; none if there is no usable file.
func LearnedMembers(dir string) []fleet.Endpoints {
	b, err := os.ReadFile(filepath.Join(dir, membersFile))
	var list []fleet.Endpoints
	if err != nil || json.Unmarshal(b, &list) != nil {
		return nil // it is a hint only: enrolment and configuration name members too
	}
	return usable(list)
}

// usable keeps what has the shape of addresses, without scheme.
func usable(list []fleet.Endpoints) []fleet.Endpoints {
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

// learn takes the members of a head set, keeps them for the next start, and returns the NATS addresses if they changed.
func (m *members) learn(ctx context.Context, list []fleet.Endpoints) (servers []string, changed bool) {
	list = usable(list)
	m.mu.Lock()
	same := slices.Equal(list, m.list)
	if len(list) > 0 && !same {
		m.list = list
	}
	m.mu.Unlock()
	if len(list) == 0 || same {
		return nil, false
	}
	if err := m.save(list); err != nil {
		m.log.WarnContext(ctx, "member addresses not stored", "err", err)
	}
	return m.nats(), true
}

func (m *members) save(list []fleet.Endpoints) error {
	b, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(m.dir, ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), filepath.Join(m.dir, membersFile))
}

// nats are the NATS addresses.
func (m *members) nats() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, e := range m.list {
		if e.NATS != "" {
			out = append(out, e.NATS)
		}
	}
	return out
}

// api are the API addresses, each call beginning with another member; the configured ones come last.
func (m *members) api() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for i := range m.list {
		if a := m.list[(i+m.next)%len(m.list)].API; a != "" {
			out = append(out, a)
		}
	}
	m.next++
	for _, a := range m.fixed {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}
