package hoststate_test

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hoststate"
)

var update = flag.Bool("update", false, "write the golden files anew")

// scenario plays one host: what the world is like is set by the lines of a file, and everything that is decided is done
// at once. Its trace has a line for each change but of times alone.
type scenario struct {
	t                    *testing.T
	host                 fleet.Host
	order                *fleet.Order
	cert                 *fleet.Certificate
	dns                  fleet.DNSFinding
	ca                   string // "ok", "busy", or a problem
	attempting           bool
	challenged, rekey    bool
	edges                hoststate.Deployment
	handshake            error
	now                  time.Time
	trace                strings.Builder
	last                 string
	looks, orders, tries int
}

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			script, want, _ := strings.Cut(string(raw), "---\n")
			s := &scenario{t: t, host: claimed(), now: t0, ca: "ok", dns: finding(missing, missing), edges: hoststate.Deployment{Published: true, Edges: 2}}
			for lines := bufio.NewScanner(strings.NewReader(script)); lines.Scan(); {
				if line := strings.TrimSpace(lines.Text()); line != "" && !strings.HasPrefix(line, "#") {
					s.do(line)
				}
			}
			if *update {
				if err := os.WriteFile(f, []byte(script+"---\n"+s.trace.String()), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(want, s.trace.String()); d != "" {
				t.Errorf("(-want +got, -update writes it anew)\n%s", d)
			}
		})
	}
}

func (s *scenario) do(line string) {
	verb, rest, _ := strings.Cut(line, " ")
	fmt.Fprintf(&s.trace, "%s > %s\n", s.at(), line)
	switch verb {
	case "dns": // dns CERTIFICATE TRAFFIC, each ok or a code
		c, tr, _ := strings.Cut(rest, " ")
		s.dns = finding(verdictOf(c), verdictOf(tr))
	case "ca":
		s.ca = rest
	case "edges": // edges COUNT [LAGGARD...]
		var n int
		words := strings.Fields(rest)
		if _, err := fmt.Sscan(words[0], &n); err != nil {
			s.t.Fatal(err)
		}
		s.edges = hoststate.Deployment{Published: true, Edges: n, Laggards: words[1:]}
	case "handshake":
		if s.handshake = nil; rest != "ok" {
			s.handshake = fmt.Errorf("%s", rest)
		}
	case "challenge":
		s.challenged = rest == "on"
	case "check":
		s.look()
	case "withdraw":
		s.cert = nil
	case "set": // set acme, own or none
		p, err := fleet.ParseCertificatePolicy(rest)
		if err != nil {
			s.t.Fatal(err)
		}
		if s.host.Spec.Certificate = p; p != fleet.CertificateACME {
			s.order = nil
		}
	case "upload": // upload LIFE
		life, err := time.ParseDuration(rest)
		if err != nil {
			s.t.Fatal(err)
		}
		g := s.host.Observed.VerifiedGeneration + 1
		s.cert, s.order = &fleet.Certificate{Host: s.host.Name, Generation: g, NotBefore: s.now, NotAfter: s.now.Add(life), Source: fleet.SourceUploaded}, nil
	case "remove":
		c := *s.cert
		c.RemovedAt = s.now
		s.cert = &c
	case "rekey":
		s.rekey = rest == "on"
	case "run":
		d, err := time.ParseDuration(rest)
		if err != nil {
			s.t.Fatal(err)
		}
		s.run(s.now.Add(d))
		return
	case "count":
		fmt.Fprintf(&s.trace, "%s   %d looks, %d orders, %d attempts\n", s.at(), s.looks, s.orders, s.tries)
		return
	default:
		s.t.Fatalf("%q is no line of a scenario", line)
	}
	s.run(s.now)
}

func verdictOf(word string) fleet.DNSVerdict {
	if word == "ok" {
		return fleet.DNSVerdict{OK: true}
	}
	return fleet.DNSVerdict{Reason: word, Message: "seen", Action: "wanted"}
}

func (s *scenario) look() {
	s.looks++
	s.host.Observed = hoststate.Look(s.host.Observed, hoststate.Behind(s.host.Spec, s.dns), s.now, usual)
}

// run does what is due until a time.
func (s *scenario) run(until time.Time) {
	for range 100_000 {
		f := hoststate.Facts{Host: s.host, Order: s.order, Cert: s.cert, Edges: &s.edges, Now: s.now, Attempting: s.attempting, Challenged: s.challenged, Rekey: s.rekey && s.cert != nil}
		before := s.host.Observed
		o, p := hoststate.Decide(f, usual)
		if before.Phase != o.Phase && !hoststate.Legal(before.Phase, o.Phase) {
			s.t.Errorf("%s: from %s to %s", s.at(), before.Phase, o.Phase)
		}
		s.host.Observed = o
		s.note()
		if s.act(p) {
			continue
		}
		switch {
		case p.Wake.IsZero() || p.Wake.After(until):
			s.now = until
			return
		case p.Wake.Equal(s.now) && !hoststate.Equal(before, o):
			continue
		case !p.Wake.After(s.now):
			s.t.Fatalf("%s: wakes at %s and has nothing to do: %+v", s.at(), p.Wake, o)
		}
		s.now = p.Wake
	}
	s.t.Fatal("it never rests")
}

// act does what is planned; false if that was nothing.
func (s *scenario) act(p hoststate.Plan) (done bool) {
	if p.DNS {
		s.look()
		done = true
	}
	if p.Order {
		s.orders++
		g := uint64(1)
		if s.cert != nil {
			g = s.cert.Generation + 1
		}
		s.order = &fleet.Order{Host: s.host.Name, Generation: g, State: fleet.OrderQueued, Challenge: s.host.Observed.Challenge, NextAttempt: s.now}
		return true
	}
	if p.Issue && s.ca == "busy" && !s.attempting {
		s.attempting = true
		return true
	}
	if p.Issue && s.ca != "busy" {
		s.issue()
		return true
	}
	if p.Handshake {
		s.host.Observed = hoststate.Shake(s.host.Observed, s.cert.Generation, s.handshake, s.now, usual)
		return true
	}
	return done
}

func (s *scenario) issue() {
	s.tries++
	s.attempting = false
	if s.ca == "ok" {
		s.cert = &fleet.Certificate{Host: s.host.Name, Generation: s.order.Generation, NotBefore: s.now, NotAfter: s.now.Add(90 * 24 * time.Hour)}
		s.order, s.rekey = nil, false
		return
	}
	code, text, _ := strings.Cut(s.ca, " ")
	s.order.Problem = hoststate.Problem(code, text, "")
	if m, _ := hoststate.Lookup(code); m.Preflight {
		s.order.NextAttempt = s.now.Add(10 * time.Minute)
		return
	}
	s.order.Attempts++
	s.order.NextAttempt = s.now.Add(time.Hour)
}

func (s *scenario) at() string { return fmt.Sprintf("%10s", s.now.Sub(t0)) }

func (s *scenario) note() {
	o := s.host.Observed
	var says, next strings.Builder
	fmt.Fprintf(&says, "%s %s", o.Phase, o.Status)
	for _, c := range []struct {
		name string
		fleet.Condition
	}{{"ownership", o.Ownership}, {"certificate", o.Certificate}, {"routing", o.Routing}} {
		fmt.Fprintf(&says, " | %s %s", c.name, c.State)
		for _, part := range []string{c.Reason, quoted(c.Message), quoted(c.Action)} {
			if part != "" {
				says.WriteString(" " + part)
			}
		}
		if !c.NextCheck.IsZero() {
			fmt.Fprintf(&next, " %s in %s", c.name, c.NextCheck.Sub(s.now))
		}
	}
	if line := says.String(); line != s.last {
		s.last = line
		fmt.Fprintf(&s.trace, "%s   %s\n", s.at(), strings.ReplaceAll(line, " | ", "\n             "))
		fmt.Fprintf(&s.trace, "             next:%s\n", next.String())
	}
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf("%q", s)
}
