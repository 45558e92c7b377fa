package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

// checkEtcd is the row that says whether there is an etcd to compare with.
const checkEtcd = "etcd"

// etcdLimit bounds the start of etcd.
const etcdLimit = 30 * time.Second

// etcd measures etcd; without it, that is a check that does not hold, and the others are told without a bound.
func (r *run) etcd(ctx context.Context) error {
	path, err := exec.LookPath("etcd")
	if err != nil {
		r.rep.Fail(checkEtcd, "", "etcd is not installed, so there is nothing to compare with: apt-get install etcd-server etcd-client")
		return nil
	}
	bench, err := r.env.Binary("etcdbench")
	if errors.Is(err, fleet.ErrNotFound) {
		r.rep.Fail(checkEtcd, "", "etcd's load generator is not built: "+err.Error())
		return nil
	}
	version, err := r.env.Version(ctx, path, "--version")
	if err != nil {
		return err
	}
	c, err := r.startEtcd(ctx, path)
	if err != nil {
		return err
	}
	r.rep.Peers = append(r.rep.Peers, report.Peer{
		Name: "etcd", Version: strings.TrimPrefix(version, "etcd Version: "),
		Setup: fmt.Sprintf("%d members on loopback, TLS with client certificates for clients and peers, defaults otherwise; %d gRPC clients (clientv3) with a connection each to the leader, %d B values, %d keys",
			members, workers, valueBytes, objects),
	})
	r.env.Say("etcd: writes")
	puts, err := c.bench(ctx, r, bench, "put")
	if err != nil {
		return err
	}
	r.env.Say("etcd: linearizable reads")
	gets, err := c.bench(ctx, r, bench, "get")
	if err != nil {
		return err
	}
	r.etcdWrites, r.etcdReads = puts.rate(), gets.rate()
	r.rep.Add("etcd writes", r.etcdWrites, "1/s", report.Bound{}, puts.String())
	r.rep.Add("etcd linearizable reads", r.etcdReads, "1/s", report.Bound{}, gets.String())
	for _, p := range c.processes {
		if err := p.Stop(); err != nil {
			return err
		}
	}
	return nil
}

type etcdCluster struct {
	processes []*harness.Process
	clients   []string
	certs     harness.Certs
}

// startEtcd starts three members and waits until they answer.
func (r *run) startEtcd(ctx context.Context, path string) (*etcdCluster, error) {
	c := &etcdCluster{}
	var hosts, initial []string
	for i := range members {
		h, err := r.env.Host()
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
		initial = append(initial, fmt.Sprintf("e%d=https://%s", i+1, net.JoinHostPort(h, "2380")))
		c.clients = append(c.clients, "https://"+net.JoinHostPort(h, "2379"))
	}
	var err error
	if c.certs, err = r.env.Certificates("etcd", hosts...); err != nil {
		return nil, err
	}
	for i, h := range hosts {
		name := fmt.Sprintf("e%d", i+1)
		peer := "https://" + net.JoinHostPort(h, "2380")
		p, err := r.env.Start(harness.Command{Name: "etcd-" + name, Path: path, Args: []string{
			"--name", name, "--data-dir", filepath.Join(r.env.Dir, "etcd", name),
			"--listen-client-urls", c.clients[i], "--advertise-client-urls", c.clients[i],
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new", "--initial-cluster-token", "loadtest",
			"--cert-file", c.certs.Cert, "--key-file", c.certs.Key, "--trusted-ca-file", c.certs.CA, "--client-cert-auth",
			"--peer-cert-file", c.certs.Cert, "--peer-key-file", c.certs.Key, "--peer-trusted-ca-file", c.certs.CA, "--peer-client-cert-auth",
			"--logger", "zap", "--log-level", "error",
		}, Env: []string{"ETCD_UNSUPPORTED_ARCH="}})
		if err != nil {
			return nil, err
		}
		c.processes = append(c.processes, p)
	}
	return c, c.findLeader(ctx)
}

// findLeader waits for a leader and leaves only its address to the clients, as they have with our members.
func (c *etcdCluster) findLeader(ctx context.Context) error {
	return harness.Until(ctx, etcdLimit, 100*time.Millisecond, func(ctx context.Context) error {
		for i, p := range c.processes {
			if err := p.Alive(); err != nil {
				return err
			}
			st, err := c.status(ctx, c.clients[i])
			if err != nil {
				return err
			}
			if st.Leader != "" && st.Leader == st.Header.Member {
				c.clients = []string{c.clients[i]}
				return nil
			}
		}
		return fleet.NewError(fleet.ErrUnavailable, "etcd", "etcd has no leader yet")
	})
}

type etcdStatus struct {
	Header struct {
		Member string `json:"member_id"`
	} `json:"header"`
	Leader string `json:"leader"`
}

// outcome is what etcdbench prints.
type etcdOutcome struct {
	Count   int           `json:"count"`
	Errors  int           `json:"errors"`
	Seconds float64       `json:"seconds"`
	P50     time.Duration `json:"p50"`
	P99     time.Duration `json:"p99"`
	Max     time.Duration `json:"max"`
	First   string        `json:"first_error"`
}

func (o etcdOutcome) rate() float64 {
	if o.Seconds == 0 {
		return 0
	}
	return float64(o.Count) / o.Seconds
}

// String tells the latencies.
func (o etcdOutcome) String() string {
	s := fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, max %.1f ms", harness.Millis(o.P50), harness.Millis(o.P99), harness.Millis(o.Max))
	if o.Errors > 0 {
		s += fmt.Sprintf(", %d errors (%s)", o.Errors, o.First)
	}
	return s
}

func (c *etcdCluster) bench(ctx context.Context, r *run, path, op string) (o etcdOutcome, err error) {
	out, err := r.env.Tool(ctx, "etcdbench-"+op, path, "-endpoints", strings.Join(c.clients, ","), "-ca", c.certs.CA, "-cert", c.certs.Cert, "-key", c.certs.Key,
		"-op", op, "-clients", strconv.Itoa(workers), "-keys", strconv.Itoa(objects), "-bytes", strconv.Itoa(valueBytes), "-warm", r.warm().String(), "-for", r.measured().String())
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(out, &o); err != nil {
		return o, fmt.Errorf("decode what etcdbench printed: %w", err)
	}
	return o, nil
}
