package harness

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// Ports of a member; each has an address of its own.
const (
	portAPI       = "8440"
	portRaft      = "8441"
	portNATS      = "8442"
	portNATSRoute = "8443"
	portAdmin     = "8444"
	portDNS       = "8453"
)

// Ports of a node.
const (
	PortHTTPS = 8443
	PortHTTP  = 8080
)

// Zone is the edge zone of every cluster.
const Zone fleet.HostName = "edge.loadtest.example"

// World is what the members of a cluster find outside; the zero value is nothing.
type World struct {
	// Names resolves the names of customers and of the edge zone.
	Names *Names
	// CA issues the hosts' certificates.
	CA *Pebble
	// Patient members leave the processors to what is measured, as if they had a machine of their own.
	Patient bool
}

// startLimit bounds the start of a member, which may have a large state to restore.
const startLimit = 3 * time.Minute

// Member is one member of a cluster under test, as a process of its own.
type Member struct {
	ID   fleet.MemberID
	Host string
	*Process

	config, data string
	cluster      *Members
}

// API is the address of the member's API.
func (m *Member) API() string { return net.JoinHostPort(m.Host, portAPI) }

// URL is the base URL of the member's API.
func (m *Member) URL() string { return "https://" + m.API() }

// Raft is the address of the member's Raft port.
func (m *Member) Raft() string { return net.JoinHostPort(m.Host, portRaft) }

// DNS is the address of the member's name server.
func (m *Member) DNS() string { return net.JoinHostPort(m.Host, portDNS) }

// Data is the member's data directory.
func (m *Member) Data() string { return m.data }

// Admin is the base URL of the admin endpoints.
func (m *Member) Admin() string { return "http://" + net.JoinHostPort(m.Host, portAdmin) }

// Members is a cluster of controlplane processes.
type Members struct {
	All []*Member
	// Token is the first operator's, CA the file of the API's authority.
	Token, CA string

	env    *Env
	world  World
	binary string
	name   string
}

// NewMembers makes a cluster of one member, not started; name is the directory and prefixes the log files.
func (e *Env) NewMembers(ctx context.Context, name string) (*Members, error) {
	return e.NewMembersIn(ctx, name, World{})
}

// NewMembersIn is NewMembers in a world.
func (e *Env) NewMembersIn(ctx context.Context, name string, w World) (*Members, error) {
	binary, err := e.Binary("controlplane")
	if err != nil {
		return nil, err
	}
	c := &Members{env: e, world: w, binary: binary, name: name}
	m, err := c.add(name)
	if err != nil {
		return nil, err
	}
	if _, err := e.Tool(ctx, name+"-init", binary, "init", "--config", m.config); err != nil {
		return nil, err
	}
	token, err := os.ReadFile(filepath.Join(m.data, "operator.token"))
	if err != nil {
		return nil, fmt.Errorf("read the first operator token: %w", err)
	}
	c.Token, c.CA = trimmed(token), filepath.Join(m.data, "api-ca.crt")
	return c, nil
}

func (c *Members) add(name string) (*Member, error) {
	host, err := c.env.Host()
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("m%d", len(c.All)+1)
	m := &Member{ID: fleet.MemberID(id), Host: host, data: filepath.Join(c.env.Dir, name, id), cluster: c}
	at := func(port string) string { return net.JoinHostPort(host, port) }
	text := fmt.Sprintf(`data_dir: %s
member: %s
cluster_zone: %s
advertise: %s
api_listen: %s
api_rate: -1
api_concurrency: -1
raft_listen: %s
nats_listen: %s
nats_route_listen: %s
dns_listen: %s
admin_listen: %s
kek_file: %s
dns:
  bake: 1s
  unlimited: [127.0.0.0/8]
`, m.data, id, Zone, host, at(portAPI), at(portRaft), at(portNATS), at(portNATSRoute), at(portDNS), at(portAdmin), c.KEK())
	resolver := at(portDNS)
	if c.world.Names != nil {
		resolver = c.world.Names.Address()
		c.world.Names.Serve(at(portDNS))
	}
	text += fmt.Sprintf("resolvers: [%q]\n", resolver)
	if ca := c.world.CA; ca != nil {
		text += fmt.Sprintf("acme:\n  directory: %s\n  ca_file: %s\ntrusted_edge_roots_file: %s\nedge_https_port: %d\n", ca.Directory, ca.Authority, ca.RootsFile, PortHTTPS)
	}
	if m.config, err = c.env.WriteFile(name+"/"+id+".yaml", []byte(text)); err != nil {
		return nil, err
	}
	c.All = append(c.All, m)
	return m, nil
}

// Start starts a member that does not run and waits until it is ready.
func (m *Member) Start(ctx context.Context) error {
	if err := m.Launch(); err != nil {
		return err
	}
	return m.Ready(ctx)
}

// Launch starts a member that does not run.
func (m *Member) Launch() (err error) {
	m.Process, err = m.cluster.env.Start(Command{Name: filepath.Base(filepath.Dir(m.data)) + "-" + string(m.ID), Path: m.cluster.binary, Args: []string{"run", "--config", m.config}, Patient: m.cluster.world.Patient})
	return err
}

// Ready waits until the member says that it is ready.
func (m *Member) Ready(ctx context.Context) error {
	return Until(ctx, startLimit, 20*time.Millisecond, func(ctx context.Context) error {
		if err := m.Alive(); err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.Admin()+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode != http.StatusOK {
			return fleet.NewError(fleet.ErrUnavailable, "member", "member %s answers %s to /readyz", m.ID, res.Status)
		}
		return nil
	})
}

// Client reaches the API by the members in order.
func (c *Members) Client() (*client.Client, error) {
	ca, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("read the API's authority: %w", err)
	}
	var addrs []string
	for _, m := range c.All {
		addrs = append(addrs, m.API())
	}
	return client.New(client.Options{Addrs: addrs, Token: c.Token, CACert: ca})
}

// Join adds a member to the running cluster and starts it; it does not wait for the state to arrive.
func (c *Members) Join(ctx context.Context, name string) (*Member, error) {
	m, err := c.add(name)
	if err != nil {
		return nil, err
	}
	cl, err := c.Client()
	if err != nil {
		return nil, err
	}
	token, err := client.Post[client.JoinTokenCreated](ctx, cl, "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinMember})
	if err != nil {
		return nil, fmt.Errorf("make a join token: %w", err)
	}
	if _, err := c.env.Tool(ctx, name+"-join-"+string(m.ID), c.binary, "join", "--config", m.config, "--token", token.Secret, "--address", c.All[0].API()); err != nil {
		return nil, err
	}
	return m, m.Launch()
}

// StartMembers makes a cluster of n members and waits until all vote.
func (e *Env) StartMembers(ctx context.Context, name string, n int) (*Members, error) {
	c, err := e.NewMembers(ctx, name)
	if err != nil {
		return nil, err
	}
	return c, c.Grow(ctx, n)
}

// Grow starts a cluster that was made, adds members until it has n, and waits until all vote.
func (c *Members) Grow(ctx context.Context, n int) error {
	if err := c.All[0].Start(ctx); err != nil {
		return err
	}
	for len(c.All) < n {
		m, err := c.Join(ctx, c.name)
		if err != nil {
			return err
		}
		if err := m.Ready(ctx); err != nil {
			return err
		}
	}
	return c.Voting(ctx, n)
}

// KEK is the file of the cluster's key-encryption key.
func (c *Members) KEK() string { return filepath.Join(c.env.Dir, c.name, "kek") }

// Voting waits until the cluster has a leader and n voters.
func (c *Members) Voting(ctx context.Context, n int) error {
	return Until(ctx, startLimit, 20*time.Millisecond, func(ctx context.Context) error {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		voters := 0
		for _, m := range st.Members {
			if m.Suffrage == "voter" {
				voters++
			}
		}
		if voters != n || st.Leader == "" {
			return fleet.NewError(fleet.ErrUnavailable, "cluster", "%d of %d members vote, the leader is %q", voters, n, st.Leader)
		}
		return nil
	})
}

// Status is the cluster as its leader sees it.
func (c *Members) Status(ctx context.Context) (client.ClusterStatus, error) {
	cl, err := c.Client()
	if err != nil {
		return client.ClusterStatus{}, err
	}
	return client.Get[client.ClusterStatus](ctx, cl, "/v1/cluster", nil)
}

// CaughtUp waits until every member's state has what the leader's has now, and all vote.
func (c *Members) CaughtUp(ctx context.Context) error {
	if err := c.Voting(ctx, len(c.All)); err != nil {
		return err
	}
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	want, err := leader.status(ctx)
	if err != nil {
		return err
	}
	for _, m := range c.All {
		if err := Until(ctx, startLimit, 20*time.Millisecond, func(ctx context.Context) error {
			st, err := m.status(ctx)
			if err == nil && st.Applied < want.Applied {
				err = fleet.NewError(fleet.ErrUnavailable, "member", "member %s has applied %d of %d", m.ID, st.Applied, want.Applied)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// status is the cluster as m sees it.
func (m *Member) status(ctx context.Context) (client.ClusterStatus, error) {
	ca, err := os.ReadFile(m.cluster.CA)
	if err != nil {
		return client.ClusterStatus{}, fmt.Errorf("read the API's authority: %w", err)
	}
	cl, err := client.New(client.Options{Addrs: []string{m.API()}, Token: m.cluster.Token, CACert: ca})
	if err != nil {
		return client.ClusterStatus{}, err
	}
	return client.Get[client.ClusterStatus](ctx, cl, "/v1/cluster", nil)
}

// Leader is the member that leads.
func (c *Members) Leader(ctx context.Context) (leader *Member, err error) {
	err = Until(ctx, startLimit, 5*time.Millisecond, func(ctx context.Context) error {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		for _, m := range c.All {
			if m.ID == st.Leader {
				leader = m
				return nil
			}
		}
		return fleet.NewError(fleet.ErrUnavailable, "leader", "the cluster has no leader")
	})
	return leader, err
}

// Others are the members but one.
func (c *Members) Others(not *Member) []*Member {
	var out []*Member
	for _, m := range c.All {
		if m != not {
			out = append(out, m)
		}
	}
	return out
}

// Stop stops all members, the leader last so that none is elected in vain.
func (c *Members) Stop(ctx context.Context) error {
	var first error
	last, err := c.Leader(ctx)
	if err != nil {
		last = nil
	}
	for _, m := range append(c.Others(last), last) {
		if m == nil || m.Process == nil {
			continue
		}
		if err := m.Stop(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Wire is an HTTP/1.1 client with one connection for each member that it talks to, as a customer's program has. It follows
// nothing and repeats nothing.
func (c *Members) Wire() (*http.Client, error) {
	ca, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("read the API's authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13},
			TLSHandshakeTimeout: 5 * time.Second, DialContext: (&net.Dialer{Timeout: time.Second}).DialContext,
			MaxIdleConnsPerHost: 1, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// Version is the first line of what a program prints when it is asked for its version.
func (e *Env) Version(ctx context.Context, path string, args ...string) (string, error) {
	out, err := e.Tool(ctx, filepath.Base(path)+"-version", path, args...)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line), nil
}
