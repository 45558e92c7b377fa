package controlplane

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// probeTimeout bounds one probe of a member.
const probeTimeout = 3 * time.Second

// A member warns below minFree of free disk space. Below noFree it has no room for another segment of its log, for events
// and for a snapshot at one time: writes stop soon, or have stopped.
const (
	minFree = 1 << 30
	noFree  = 64 << 20
)

// checks runs the readiness checks of the cluster as this member sees them, one line each.
func (m *member) checks(ctx context.Context) []fleet.Check {
	z := m.zone
	out := []fleet.Check{m.checkHealth(), m.checkKEK(ctx), m.checkDisk(), m.check.CheckDelegation(ctx, z.Zone(), z.Servers())}
	if m.backups != nil {
		out = append(out, m.backups.Check())
	}
	members := m.state.Read().Members()
	found := make([][]fleet.Check, len(members))
	var asked sync.WaitGroup // one after the other, hosts that are switched off would outlast the caller's patience
	for i, other := range members {
		asked.Go(func() { found[i] = m.checkMember(ctx, other) })
	}
	asked.Wait()
	return append(append(append(out, slices.Concat(found...)...), m.checkNodes(), m.checkDNSSets(), m.checkAuthorities()), m.checkConsul()...)
}

// checkHealth is what /readyz of this member says.
func (m *member) checkHealth() fleet.Check {
	c := fleet.Check{Name: "health of " + string(m.c.Member), State: fleet.CheckOK, Detail: "ready for work"}
	failing := m.tel.Health.Ready()
	for i, name := range slices.Sorted(maps.Keys(failing)) {
		if i == 0 {
			c.State, c.Detail = fleet.CheckFail, name+": "+failing[name]
			continue
		}
		c.Detail += "; " + name + ": " + failing[name]
	}
	return c
}

func (m *member) checkDisk() fleet.Check {
	c := fleet.Check{Name: "disk of " + string(m.c.Member), State: fleet.CheckOK}
	left, err := free(m.c.DataDir)
	if err != nil {
		c.State, c.Detail = fleet.CheckFail, err.Error()
		return c
	}
	c.Detail = fmt.Sprintf("%d MiB free at %s", left>>20, m.c.DataDir)
	switch {
	case left < noFree:
		c.State = fleet.CheckFail
		c.Detail += ": free some now and restart the member, writes stop when nothing is left"
	case left < minFree:
		c.State = fleet.CheckWarn
		c.Detail += fmt.Sprintf(": free some, below %d MiB writes may stop", noFree>>20)
	}
	return c
}

// free is how many bytes the file system of a directory has left.
func free(dir string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil //nolint:gosec // a block size is positive
}

// checkMember probes the ports of a member and compares its clock with ours.
func (m *member) checkMember(ctx context.Context, other fleet.Member) []fleet.Check {
	ports := fleet.Check{Name: "ports of " + string(other.ID), State: fleet.CheckOK, Detail: "raft, api and nats accept connections"}
	probes := []struct{ name, addr string }{{"raft", other.Raft}, {"api", other.API}, {"nats", other.NATS}}
	closed := make([]string, len(probes))
	var clock fleet.Check
	var asked sync.WaitGroup
	for i, p := range probes {
		asked.Go(func() {
			conn, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, "tcp", p.addr)
			if err != nil {
				closed[i] = p.name + " " + p.addr
				return
			}
			_ = conn.Close()
		})
	}
	asked.Go(func() { clock = m.checkClock(ctx, other) })
	asked.Wait()
	closed = slices.DeleteFunc(closed, func(s string) bool { return s == "" })
	if len(closed) > 0 {
		ports.State, ports.Detail = fleet.CheckFail, fmt.Sprintf("%s cannot be reached from %s: is the member running, and does a firewall allow it?", strings.Join(closed, ", "), m.c.Member)
	}
	return []fleet.Check{ports, clock}
}

func (m *member) checkClock(ctx context.Context, other fleet.Member) fleet.Check {
	c := fleet.Check{Name: "clock of " + string(other.ID), State: fleet.CheckWarn, Detail: "not known: its API does not answer"}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://"+other.API+"/v1/openapi.json", http.NoBody)
	if err != nil {
		return c
	}
	res, err := m.forward.RoundTrip(req)
	if err != nil {
		return c
	}
	_ = res.Body.Close()
	theirs, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return c
	}
	skew := time.Since(theirs).Truncate(time.Second)
	c.State, c.Detail = fleet.CheckOK, fmt.Sprintf("within %s of ours", max(skew.Abs(), time.Second))
	if skew.Abs() > fleet.MaxClockSkew {
		c.State, c.Detail = fleet.CheckFail, fmt.Sprintf("off by %s from %s (limit %s): set both by NTP", skew, m.c.Member, fleet.MaxClockSkew)
	}
	return c
}

func (m *member) checkNodes() fleet.Check {
	c := fleet.Check{Name: "edge nodes", State: fleet.CheckOK}
	var up, all int
	var bad []string
	for _, n := range m.state.Read().Nodes() {
		if !n.Identity.RevokedAt.IsZero() {
			continue
		}
		all++
		switch {
		case n.Lock != nil:
			bad = append(bad, fmt.Sprintf("%s is locked: its identity is on two machines; see fleetctl node show %[1]s", n.ID))
		case n.Observed.State != fleet.NodeUp:
			bad = append(bad, fmt.Sprintf("%s is %s", n.ID, n.Observed.State))
		case n.Observed.ClockSkew != "":
			bad = append(bad, fmt.Sprintf("the clock of %s is off by %s: set it by NTP", n.ID, n.Observed.ClockSkew))
		default:
			up++
		}
	}
	c.Detail = fmt.Sprintf("%d of %d are up with a good clock", up, all)
	if len(bad) > 0 {
		c.State = fleet.CheckWarn
		c.Detail += "; " + strings.Join(bad, "; ")
	}
	return c
}
