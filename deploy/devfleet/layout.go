package devfleet

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/edgefleet/edgefleet/fleet"
)

// Zone is the edge zone of every dev fleet.
const Zone fleet.HostName = "edge.example"

// The ports are the same on every address; only addresses differ between processes.
const (
	portAPI         = 8440
	portRaft        = 8441
	portNATS        = 8442
	portNATSRoute   = 8443
	portDNS         = 8053
	portAdmin       = 8444
	portHTTPS       = 8443
	portHTTP        = 8080
	portOrigin      = 8090
	portACME        = 14000
	portACMEControl = 15000
)

// The third octet tells what an address is for.
const (
	octetMembers = 1
	octetNodes   = 2
	octetOthers  = 3
)

// Options says what fleet to start and what to do with it.
type Options struct {
	// Dir is the fleet's directory: data, configuration, logs, control socket. Default .devfleet.
	Dir string
	// Binaries is the directory of controlplane, edgesupervisor, edgenode and pebble. Default: where this executable is.
	Binaries string
	// Members is the number of control-plane members, 1 to 7; Nodes the number of edge nodes, 1 to 50.
	Members, Nodes int
	// Block is the second octet of every address, so that several fleets can run side by side.
	Block int
	// Consul is the address of an agent that members use; empty for none. It is started by somebody else.
	Consul string
	// OTLP is the base URL of an OpenTelemetry collector that members and edges push to; empty for none.
	OTLP string
	// ReadyFile is written when the story has been played; empty for none.
	ReadyFile string
	// Short plays the story until the host is active, and leaves out what comes then: attacks, faults.
	Short bool
	// Once stops the fleet when the story has been played.
	Once bool
	// Keep keeps the directory after the fleet was stopped.
	Keep bool
	// Out is where people read what happens.
	Out io.Writer
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		o.Dir = ".devfleet"
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Binaries == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find own executable: %w", err)
		}
		o.Binaries = filepath.Dir(self)
	}
	for _, p := range []*string{&o.Dir, &o.Binaries, &o.ReadyFile} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return o, fmt.Errorf("absolute path of %s: %w", *p, err)
		}
		*p = abs
	}
	return o, o.validate()
}

func (o Options) validate() error {
	switch {
	case o.Members < 1 || o.Members > 7:
		return fleet.Invalid("members", "--members %d: give 1 to 7; 3 shows a failover", o.Members)
	case o.Nodes < 1 || o.Nodes > 50:
		return fleet.Invalid("nodes", "--nodes %d: give 1 to 50", o.Nodes)
	case o.Block < 0 || o.Block > 255:
		return fleet.Invalid("address-block", "--address-block %d: give 0 to 255, it is the second octet of 127.x.y.z", o.Block)
	}
	for _, b := range []string{binControlPlane, binSupervisor, binNode, binPebble} {
		if _, err := os.Stat(filepath.Join(o.Binaries, b)); err != nil {
			return fleet.NewError(fleet.ErrNotFound, "binaries", "%s is not in %s: run 'make build' and start bin/devfleet", b, o.Binaries)
		}
	}
	return nil
}

// The binaries that a fleet consists of.
const (
	binControlPlane = "controlplane"
	binSupervisor   = "edgesupervisor"
	binNode         = "edgenode"
	binPebble       = "pebble"
)

// layout is who lives where.
type layout struct{ block, members, nodes int }

func (l layout) ip(kind, n int) string { return fmt.Sprintf("127.%d.%d.%d", l.block, kind, n) }
func (l layout) member(i int) string   { return l.ip(octetMembers, i) }
func (l layout) node(i int) string     { return l.ip(octetNodes, i) }
func (l layout) customerDNS() string   { return at(l.ip(octetOthers, 1), portDNS) }
func (l layout) origin() string        { return at(l.ip(octetOthers, 2), portOrigin) }
func (l layout) pebbleIP() string      { return l.ip(octetOthers, 3) }
func (l layout) acmeDirectory() string { return "https://" + at(l.pebbleIP(), portACME) + "/dir" }
func (l layout) acmeRoots() string {
	return "https://" + at(l.pebbleIP(), portACMEControl) + "/roots/0"
}
func memberName(i int) string              { return "m" + strconv.Itoa(i) }
func nodeName(i int) string                { return "n" + strconv.Itoa(i) }
func at(ip string, port int) string        { return net.JoinHostPort(ip, strconv.Itoa(port)) }
func (l layout) allMembers(p int) []string { return addresses(l.members, l.member, p) }

func addresses(n int, ip func(int) string, port int) []string {
	as := make([]string, 0, n)
	for i := 1; i <= n; i++ {
		as = append(as, at(ip(i), port))
	}
	return as
}

// listener is one address that a process of the fleet will bind.
type listener struct{ network, address string }

// listeners lists every address of the fleet, so that a busy one is reported before anything is started.
func (l layout) listeners() []listener {
	ls := []listener{
		{"udp", l.customerDNS()},
		{"tcp", l.customerDNS()},
		{"tcp", l.origin()},
		{"tcp", at(l.pebbleIP(), portACME)},
		{"tcp", at(l.pebbleIP(), portACMEControl)},
	}
	for i := 1; i <= l.members; i++ {
		for _, p := range []int{portAPI, portRaft, portNATS, portNATSRoute, portDNS, portAdmin} {
			ls = append(ls, listener{"tcp", at(l.member(i), p)})
		}
		ls = append(ls, listener{"udp", at(l.member(i), portDNS)})
	}
	for i := 1; i <= l.nodes; i++ {
		for _, p := range []int{portHTTPS, portHTTP, portAdmin} {
			ls = append(ls, listener{"tcp", at(l.node(i), p)})
		}
	}
	return ls
}
