package devfleet

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// outsideWorld starts what a fleet finds on the Internet.
func (s *story) outsideWorld(ctx context.Context) (string, error) {
	if err := preparePebble(s.dir.pebbleFiles(), s.layout, time.Now()); err != nil {
		return "", err
	}
	for _, name := range []string{"origin", "pebble"} {
		if err := s.start(ctx, name); err != nil {
			return "", err
		}
	}
	return s.layout.acmeDirectory(), s.until(ctx, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.layout.origin())
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// firstMember makes the cluster and starts it with one member.
func (s *story) firstMember(ctx context.Context) (string, error) {
	name := memberName(1)
	if err := s.writeConfig(name, s.memberConfig(1)); err != nil {
		return "", err
	}
	if err := s.tool(ctx, name, binControlPlane, "init", "--config", s.configFile(name)); err != nil {
		return "", err
	}
	if err := s.start(ctx, name); err != nil {
		return "", err
	}
	token, err := os.ReadFile(s.operatorTokenFile())
	if err != nil {
		return "", fmt.Errorf("read the first operator token: %w", err)
	}
	s.tokens.operator = strings.TrimSpace(string(token))
	ca, err := os.ReadFile(s.apiCAFile())
	if err != nil {
		return "", fmt.Errorf("read the API's CA certificate: %w", err)
	}
	if s.api, err = newAPI(s.layout.allMembers(portAPI), ca, s.tokens.operator); err != nil {
		return "", err
	}
	leader, err := s.leader(ctx)
	return string(leader), err
}

// operatorTokenFile and apiCAFile are written by controlplane init.
func (f *Fleet) operatorTokenFile() string { return f.dir.data(memberName(1)) + "/operator.token" }
func (f *Fleet) apiCAFile() string         { return f.dir.data(memberName(1)) + "/api-ca.crt" }

// leader waits until a member says who leads.
func (s *story) leader(ctx context.Context) (leader fleet.MemberID, err error) {
	return leader, s.until(ctx, func(ctx context.Context) error {
		c, err := s.api.cluster(ctx)
		if err == nil && c.Leader == "" {
			err = fleet.NewError(fleet.ErrUnavailable, "leader", "the cluster has no leader")
		}
		leader = c.Leader
		return err
	})
}

// otherMembers joins the other members one by one, as an operator would: a token by the API, the KEK by hand.
func (s *story) otherMembers(ctx context.Context) (string, error) {
	kek, err := os.ReadFile(s.kekFile(1))
	if err != nil {
		return "", fmt.Errorf("read the key-encryption key that init made: %w", err)
	}
	for i := 2; i <= s.layout.members; i++ {
		name := memberName(i)
		if err := s.writeConfig(name, s.memberConfig(i)); err != nil {
			return "", err
		}
		if err := writeFile(s.kekFile(i), kek); err != nil {
			return "", err
		}
		token, err := s.api.joinToken(ctx, fleet.JoinMember)
		if err != nil {
			return "", err
		}
		join := []string{"join", "--config", s.configFile(name), "--token", token}
		if s.opts.Consul == "" { // else it finds the first one there
			join = append(join, "--address", at(s.layout.member(1), portAPI))
		}
		if err := s.tool(ctx, name, binControlPlane, join...); err != nil {
			return "", err
		}
		if err := s.start(ctx, name); err != nil {
			return "", err
		}
	}
	return "", s.until(ctx, func(ctx context.Context) error {
		c, err := s.api.cluster(ctx)
		if err == nil && len(c.Members) != s.layout.members {
			err = fleet.NewError(fleet.ErrUnavailable, "members", "the cluster counts %d members", len(c.Members))
		}
		return err
	})
}

// enrolNodes gives each node a join token and waits for its first heartbeats.
func (s *story) enrolNodes(ctx context.Context) (string, error) {
	for i := 1; i <= s.layout.nodes; i++ {
		name := nodeName(i)
		token, err := s.api.joinToken(ctx, fleet.JoinNode)
		if err != nil {
			return "", err
		}
		cfg := s.nodeConfig(i)
		if err := writeFile(cfg.JoinTokenFile, []byte(token+"\n")); err != nil {
			return "", err
		}
		if err := s.writeConfig(name, cfg); err != nil {
			return "", err
		}
		if err := s.start(ctx, name); err != nil {
			return "", err
		}
	}
	return "", s.until(ctx, s.nodesUp)
}

func (s *story) nodesUp(ctx context.Context) error {
	ns, err := s.api.nodes(ctx)
	if err != nil {
		return err
	}
	var up, seen []string
	for _, n := range ns {
		seen = append(seen, fmt.Sprintf("%s %s", n.ID, n.Observed.State))
		if n.Observed.State == fleet.NodeUp && n.Observed.Serving {
			up = append(up, string(n.ID))
		}
	}
	if len(up) != s.layout.nodes {
		return fleet.NewError(fleet.ErrUnavailable, "nodes", "%d of %d nodes are up and serve; the API says: %s", len(up), s.layout.nodes, strings.Join(seen, ", "))
	}
	return nil
}

// addHost makes the demo customer and its host.
func (s *story) addHost(ctx context.Context) (string, error) {
	token, err := s.api.addTenant(ctx, demoTenant)
	if err != nil {
		return "", err
	}
	s.tokens.tenant = token
	if s.tenant, err = newAPI(s.api.addrs, s.api.ca, token); err != nil {
		return "", err
	}
	s.records, err = s.tenant.addHost(ctx, demoTenant, demoHost, "http://"+s.layout.origin())
	return string(demoHost), err
}

// setRecords does what the answer to addHost asks the customer to do.
func (s *story) setRecords(context.Context) (string, error) {
	if len(s.records) != 2 {
		return "", fleet.NewError(fleet.ErrInvalid, "records", "the API asked for %d records, wanted one for the certificate and one for the traffic: %v", len(s.records), s.records)
	}
	var note []string
	for _, r := range s.records {
		if err := s.dns.set(r.Name, r.Type, []string{r.Value}); err != nil {
			return "", err
		}
		note = append(note, r.Name+" "+r.Type)
	}
	return strings.Join(note, ", "), nil
}

// certificate waits until the host is active: that is, the leader itself verified TLS through the edges.
func (s *story) certificate(ctx context.Context) (string, error) {
	return "", s.until(ctx, func(ctx context.Context) error {
		h, err := s.tenant.host(ctx, demoTenant, demoHost)
		if err != nil {
			return err
		}
		o := h.Observed
		if o.Status != fleet.StatusActive {
			return fleet.NewError(fleet.ErrUnavailable, "host", "host is %s (%s); ownership: %s; certificate: %s; routing: %s",
				o.Status, o.Phase, condition(o.Ownership), condition(o.Certificate), condition(o.Routing))
		}
		return nil
	})
}

func condition(c fleet.Condition) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", c.State, c.Reason, c.Message))
}
