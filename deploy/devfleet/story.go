package devfleet

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// tailLines is how much of a log is shown when a step fails.
const tailLines = 15

// step is one sentence of the story. Its note is printed behind the time.
type step struct {
	name  string
	limit time.Duration
	run   func(context.Context) (note string, err error)
	// logs names the processes whose logs are shown when the step fails.
	logs []string
}

// story is what happens to the fleet, in order, and what one step learns for the next.
type story struct {
	*Fleet
	api        *api
	tenant     *api
	records    []fleet.Record
	roots      *x509.CertPool
	visitors   []*visitor
	killed     fleet.MemberID
	lateAttack string
	// secrets were in a request to maskedPage.
	secrets    []string
	maskedPage string
	tokens     struct{ operator, tenant string }
}

func newStory(f *Fleet) *story { return &story{Fleet: f} }

func (s *story) steps() []step {
	var members, nodes []string
	for i := 1; i <= s.layout.members; i++ {
		members = append(members, memberName(i))
	}
	for i := 1; i <= s.layout.nodes; i++ {
		nodes = append(nodes, nodeName(i))
	}
	all := append(append([]string{}, members...), nodes...)
	ready := step{"ready", 5 * time.Second, func(context.Context) (string, error) { return "", s.writeReadyFile() }, nil}
	first := []step{
		{"customer DNS, origin and ACME CA answer", 20 * time.Second, s.outsideWorld, []string{"origin", "pebble"}},
		{"leader elected", 30 * time.Second, s.firstMember, members[:1]},
		{fmt.Sprintf("%d of %d members joined", s.layout.members, s.layout.members), 60 * time.Second, s.otherMembers, members},
		{fmt.Sprintf("%d of %d nodes enrolled", s.layout.nodes, s.layout.nodes), 60 * time.Second, s.enrolNodes, all},
		{"host added", 15 * time.Second, s.addHost, members},
		{"customer set the DNS records", 5 * time.Second, s.setRecords, nil},
		{"certificate issued, host active", 90 * time.Second, s.certificate, append(members, "pebble")},
		{"HTTPS verified through every edge", 20 * time.Second, s.https, nodes},
	}
	if s.opts.Short {
		return append(first, ready)
	}
	return append(first, []step{
		{"GET, POST, WebSocket and 20 MB reach the origin", 90 * time.Second, s.benign, nodes},
		{"SQL injection blocked in mode block", 20 * time.Second, s.blocked, nodes},
		{"passed and reported in mode monitoring", 60 * time.Second, s.monitored, all},
		{"secrets masked, and in no file", 60 * time.Second, s.masked, all},
		{"rule live on every node", 30 * time.Second, s.rule, all},
		{"leader killed, no request failed", 60 * time.Second, s.killLeader, all},
		{"killed member is back", 30 * time.Second, s.restartLeader, members},
		{"no member left: restarted edge serves and blocks", 60 * time.Second, s.alone, nodes},
		{"members back: the event of that time arrived", 90 * time.Second, s.reunited, all},
		ready,
	}...)
}

// errSkip leaves a step out.
var errSkip = errors.New("skipped")

// run plays every step; the first that fails ends the story.
func (s *story) run(ctx context.Context, steps []step) error {
	begin := time.Now()
	for _, st := range steps {
		start := time.Now()
		stepCtx, cancel := context.WithTimeout(ctx, st.limit)
		note, err := st.run(stepCtx)
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, errSkip) {
			s.say("- %-50s %6s  %s", st.name, "", note)
			continue
		}
		if err != nil {
			s.report(st.name, time.Since(start), "", err)
			s.showLogs(st)
			return fmt.Errorf("%w: %s: %w", ErrStory, st.name, err)
		}
		s.report(st.name, time.Since(start), note, nil)
	}
	s.say("the whole story took %.1fs", time.Since(begin).Seconds())
	return nil
}

// showLogs prints the ends of the logs that most likely say why a step failed: those of crashed processes if any.
func (s *story) showLogs(st step) {
	logs := st.logs
	var crashed []string
	for _, p := range s.processes {
		if p.status().State == Crashed {
			crashed = append(crashed, p.name)
		}
	}
	if len(crashed) > 0 {
		logs = crashed
	}
	for _, name := range logs {
		s.say("  the end of %s:", s.dir.log(name))
		for _, line := range tail(s.dir.log(name), tailLines) {
			s.say("    %s", line)
		}
	}
}

// tail returns the last n lines of a file.
func tail(path string, n int) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return []string{err.Error()}
	}
	lines := strings.Split(string(bytes.TrimSpace(b)), "\n")
	return lines[max(0, len(lines)-n):]
}

// until waits for check to return nil; a process that crashes ends the waiting.
func (s *story) until(ctx context.Context, check func(context.Context) error) error {
	return poll(ctx, 50*time.Millisecond, func(ctx context.Context) error {
		if err := s.crashed(); err != nil {
			return &fatalError{err}
		}
		return check(ctx)
	})
}

// marker is a random word that no two steps share.
func marker(kind string) string { return kind + "-" + strings.ToLower(rand.Text()[:12]) }

// printNext tells a person what to try.
func (s *story) printNext() {
	curl := fmt.Sprintf("curl --cacert %s --resolve %s:%d:%s https://%s:%d", s.acmeRootsFile(), demoHost, portHTTPS, s.layout.node(1), demoHost, portHTTPS)
	s.say(`
The fleet runs until Ctrl-C. Try, in another terminal:

  export FLEETCTL_ADDR=%s FLEETCTL_CACERT=%s
  export FLEETCTL_TOKEN=%s
  %s cluster status
  %s/
  %s'/?id=%%27%%20OR%%201=1--'

  %s --dir %s status          what runs; also: logs m1, dns list
  %s --dir %s kill m1         then: start m1, pause n2, resume n2
`, strings.Join(s.layout.allMembers(portAPI), ","), s.apiCAFile(), s.tokens.operator, s.binary("fleetctl"), curl, curl,
		s.binary("devfleet"), s.dir.path, s.binary("devfleet"), s.dir.path)
}
