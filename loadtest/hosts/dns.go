package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

const (
	// checkDNS is the row of the comparison.
	checkDNS = "DNS answers"
	// dnsClients are the sockets that ask, dnsRounds how often each server is measured, in turn.
	dnsClients = 16
	dnsRounds  = 3
	// nsdLimit bounds the start of nsd.
	nsdLimit = 20 * time.Second
	portNSD  = "5353"
)

// dns compares the answers a second of a member's name server with those of nsd: the same zone, the same questions.
func (r *run) dns(ctx context.Context) error {
	tools := map[string]string{}
	for _, name := range []string{"nsd", "dnsperf"} {
		path, err := exec.LookPath(name)
		if err != nil && name == "nsd" { // where Debian has it, which is not on every PATH
			path, err = exec.LookPath("/usr/sbin/nsd")
		}
		if err != nil {
			r.rep.Fail(checkDNS, "1/s", name+" is not installed, so there is nothing to compare with: make peers")
			return nil //nolint:nilerr // it is a check that does not hold
		}
		tools[name] = path
	}
	w, err := r.fleet(ctx)
	if err != nil {
		return err
	}
	names, err := r.zone(ctx, w)
	if err != nil {
		return err
	}
	server, err := r.startNSD(ctx, tools["nsd"], w, names)
	if err != nil {
		return err
	}
	var questions strings.Builder
	for _, n := range names {
		questions.WriteString(n + " A\n")
	}
	file, err := r.env.WriteFile("dns/questions", []byte(questions.String()))
	if err != nil {
		return err
	}
	var ours, theirs []float64
	for i := range harness.Pick(r.env, dnsRounds, 1, 1) {
		r.env.Say("DNS answers, round %d", i+1)
		for _, s := range []struct {
			name, address string
			rates         *[]float64
		}{{"member", w.members.All[0].DNS(), &ours}, {"nsd", server.address, &theirs}} {
			rate, err := r.dnsperf(ctx, tools["dnsperf"], fmt.Sprintf("dnsperf-%s-%d", s.name, i), s.address, file)
			if err != nil {
				return err
			}
			*s.rates = append(*s.rates, rate)
		}
	}
	if err := server.process.Stop(); err != nil {
		return err
	}
	a, b := mean(ours), mean(theirs)
	r.rep.Add("nsd's DNS answers", b, "1/s", report.Bound{}, fmt.Sprintf("rounds %.0f", theirs))
	r.rep.Add(checkDNS, a, "1/s", report.AtLeast(b/4), fmt.Sprintf("%.2f × nsd's; by UDP of one member, %d names with the addresses of %d nodes, dnsperf with %d clients on the same machine; rounds %.0f", a/b, len(names), len(w.nodes), dnsClients, ours))
	return nil
}

func mean(xs []float64) float64 {
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	return sum / float64(max(len(xs), 1))
}

// zone adds hosts and returns their names in the edge zone.
func (r *run) zone(ctx context.Context, w *world) ([]string, error) {
	cs := make([]customer, harness.Pick(r.env, 1000, 100, 5))
	for i := range cs {
		cs[i] = customer{host: fleet.HostName(fmt.Sprintf("www.d%05d.example", i)), tenant: fleet.TenantID(fmt.Sprintf("dns-%d", i/100))}
		if i%100 == 0 {
			if err := w.addTenants(ctx, cs[i].tenant); err != nil {
				return nil, err
			}
		}
	}
	if err := w.addHosts(ctx, cs); err != nil {
		return nil, err
	}
	var names []string
	for _, c := range cs {
		for _, rec := range c.records {
			if rec.Name == string(c.host) {
				names = append(names, dns.Fqdn(rec.Value))
			}
		}
	}
	if len(names) != len(cs) {
		return nil, fleet.NewError(fleet.ErrCorrupt, "records", "%d of %d hosts have a traffic record", len(names), len(cs))
	}
	// A node is in DNS when it was healthy for a time.
	return names, harness.Until(ctx, issueLimit, visitPause, func(context.Context) error {
		m, err := ask(w.members.All[0].DNS(), names[0])
		if err == nil && len(m.Answer) < len(w.nodes) {
			err = fleet.NewError(fleet.ErrUnavailable, "dns", "%s has %d addresses of %d nodes", names[0], len(m.Answer), len(w.nodes))
		}
		return err
	})
}

func ask(server, name string) (*dns.Msg, error) {
	m, _, err := (&dns.Client{Timeout: 2 * time.Second}).Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), server)
	return m, err
}

// nsd is the peer.
type nsd struct {
	process *harness.Process
	address string
}

// startNSD starts nsd with the same records and waits until it answers.
func (r *run) startNSD(ctx context.Context, path string, w *world, names []string) (*nsd, error) {
	host, err := r.env.Host()
	if err != nil {
		return nil, err
	}
	zone := dns.Fqdn(string(harness.Zone))
	var text strings.Builder
	fmt.Fprintf(&text, "$TTL 20\n%s 3600 IN SOA m1.ns.%s hostmaster.%s 1 600 60 604800 20\n", zone, zone, zone)
	for _, m := range w.members.All {
		fmt.Fprintf(&text, "%s 3600 IN NS %s.ns.%s\n%s.ns.%s 3600 IN A %s\n", zone, m.ID, zone, m.ID, zone, m.Host)
	}
	for _, n := range names {
		for _, node := range w.nodes {
			fmt.Fprintf(&text, "%s 20 IN A %s\n", n, node.Host)
		}
	}
	file, err := r.env.WriteFile("nsd/zone", []byte(text.String()))
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(file)
	config := fmt.Sprintf(`server:
  ip-address: %s@%s
  server-count: %d
  reuseport: yes
  username: ""
  chroot: ""
  zonesdir: %q
  pidfile: ""
  xfrdfile: %q
  xfrdir: %q
  zonelistfile: %q
  rrl-ratelimit: 0
  verbosity: 0
remote-control:
  control-enable: no
zone:
  name: %q
  zonefile: %q
`, host, portNSD, r.rep.Machine.Cores, dir, filepath.Join(dir, "xfrd.state"), dir, filepath.Join(dir, "zone.list"), zone, file)
	if file, err = r.env.WriteFile("nsd/nsd.conf", []byte(config)); err != nil {
		return nil, err
	}
	version, err := exec.CommandContext(ctx, path, "-v").CombinedOutput() // it writes to standard error
	if err != nil {
		return nil, fmt.Errorf("ask nsd for its version: %w", err)
	}
	first, _, _ := strings.Cut(string(version), "\n")
	r.rep.Peers = append(r.rep.Peers, report.Peer{Name: "nsd", Version: strings.TrimPrefix(first, "NSD version "), Setup: fmt.Sprintf("the same zone of %d names, %d processes with reuseport, no rate limit", len(names), r.rep.Machine.Cores)})
	s := &nsd{address: net.JoinHostPort(host, portNSD)}
	if s.process, err = r.env.Start(harness.Command{Name: "nsd", Path: path, Args: []string{"-d", "-c", file}}); err != nil {
		return nil, err
	}
	return s, harness.Until(ctx, nsdLimit, 50*time.Millisecond, func(context.Context) error {
		if err := s.process.Alive(); err != nil {
			return err
		}
		m, err := ask(s.address, names[0])
		if err == nil && len(m.Answer) != len(w.nodes) {
			err = fleet.NewError(fleet.ErrUnavailable, "nsd", "nsd answers %s with %d records", names[0], len(m.Answer))
		}
		return err
	})
}

var (
	dnsperfRate = regexp.MustCompile(`Queries per second:\s+([0-9.]+)`)
	dnsperfLost = regexp.MustCompile(`Queries completed:\s+\d+ \(([0-9.]+)%\)`)
	dnsperfGood = regexp.MustCompile(`NOERROR \d+ \(([0-9.]+)%\)`)
)

// dnsperf measures a server; an answer that is lost or is an error, beyond one in a hundred, is an error.
func (r *run) dnsperf(ctx context.Context, path, name, address, questions string) (float64, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	seconds := harness.Pick(r.env, 10, 2, 1)
	out, err := r.env.Tool(ctx, name, path, "-s", host, "-p", port, "-d", questions, "-l", strconv.Itoa(seconds), "-c", strconv.Itoa(dnsClients), "-T", "1", "-q", "200")
	if err != nil {
		return 0, err
	}
	values := make([]float64, 3)
	for i, re := range []*regexp.Regexp{dnsperfRate, dnsperfLost, dnsperfGood} {
		m := re.FindSubmatch(out)
		if m == nil {
			return 0, fleet.NewError(fleet.ErrCorrupt, "dnsperf", "dnsperf of %s says nothing of %s: %.2000s", address, re, out)
		}
		if values[i], err = strconv.ParseFloat(string(m[1]), 64); err != nil {
			return 0, err
		}
	}
	if values[1] < 99 || values[2] < 99 {
		return 0, errors.Join(fleet.ErrUnavailable, fmt.Errorf("%s completed %.1f %% of the questions, %.1f %% of them well", address, values[1], values[2]))
	}
	return values[0], nil
}
