package harness

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// Node is an edge node: a supervisor and its worker, as processes of their own.
type Node struct {
	ID   fleet.NodeID
	Host string
	*Process
}

// HTTPS is where visitors reach it.
func (n *Node) HTTPS() string { return net.JoinHostPort(n.Host, strconv.Itoa(PortHTTPS)) }

// Admin is the base URL of the worker's admin endpoints.
func (n *Node) Admin() string { return "http://" + net.JoinHostPort(n.Host, portAdmin) }

// StartNodes adds edge nodes to a cluster that runs, and waits until all serve.
func (c *Members) StartNodes(ctx context.Context, n int) ([]*Node, error) {
	cl, err := c.Client()
	if err != nil {
		return nil, err
	}
	var out []*Node
	for i := range n {
		node, err := c.startNode(ctx, cl, fmt.Sprintf("n%d", i+1))
		if err != nil {
			return nil, err
		}
		out = append(out, node)
	}
	return out, Until(ctx, startLimit, 50*time.Millisecond, func(ctx context.Context) error {
		all, err := client.All[fleet.Node](ctx, cl, "/v1/nodes", nil)
		if err != nil {
			return err
		}
		up := 0
		for _, node := range all {
			if node.Observed.State == fleet.NodeUp && node.Observed.Serving {
				up++
			}
		}
		for _, node := range out {
			if err := node.Alive(); err != nil {
				return err
			}
		}
		if up < n {
			return fleet.NewError(fleet.ErrUnavailable, "nodes", "%d of %d nodes are up and serve", up, n)
		}
		return nil
	})
}

// convergedFor is for how long nothing may move before nodes count as converged.
const convergedFor = 2 * time.Second

// Converged waits until every node runs the same heads of all kinds, and nothing moves any more.
func (c *Members) Converged(ctx context.Context, n int) error {
	cl, err := c.Client()
	if err != nil {
		return err
	}
	var last string
	since := time.Now()
	return Until(ctx, startLimit, 100*time.Millisecond, func(ctx context.Context) error {
		all, err := client.All[fleet.Node](ctx, cl, "/v1/nodes", nil)
		if err != nil {
			return err
		}
		heads := map[string]bool{}
		for _, node := range all {
			var roots strings.Builder
			for _, kind := range fleet.HeadKinds {
				h, ok := node.Observed.Head(kind)
				if !ok || h.Reason != "" {
					return fleet.NewError(fleet.ErrUnavailable, "nodes", "node %s does not run its %s yet: %s", node.ID, kind, h.Reason)
				}
				roots.WriteString(string(h.Root))
			}
			now := roots.String()
			heads[now] = true
			if now != last {
				last, since = now, time.Now()
			}
		}
		if len(all) < n || len(heads) != 1 || time.Since(since) < convergedFor {
			return fleet.NewError(fleet.ErrUnavailable, "nodes", "%d nodes run %d different sets of heads, since %s", len(all), len(heads), time.Since(since).Round(time.Second))
		}
		return nil
	})
}

func (c *Members) startNode(ctx context.Context, cl *client.Client, id string) (*Node, error) {
	binary, err := c.env.Binary("edgesupervisor")
	if err != nil {
		return nil, err
	}
	if _, err := c.env.Binary("edgenode"); err != nil {
		return nil, err
	}
	host, err := c.env.Host()
	if err != nil {
		return nil, err
	}
	token, err := client.Post[client.JoinTokenCreated](ctx, cl, "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinNode})
	if err != nil {
		return nil, fmt.Errorf("make a join token: %w", err)
	}
	secret, err := c.env.WriteFile(c.name+"/"+id+".token", []byte(token.Secret+"\n"))
	if err != nil {
		return nil, err
	}
	var members []string
	for _, m := range c.All {
		members = append(members, strconv.Quote(m.API()))
	}
	resolver := c.All[0].DNS()
	if c.world.Names != nil {
		resolver = c.world.Names.Address()
	}
	at := func(port string) string { return net.JoinHostPort(host, port) }
	text := fmt.Sprintf(`data_dir: %s
node: %s
addresses: [%q]
https_listen: %s
http_listen: %s
admin_listen: %s
control_plane: [%s]
join_token_file: %s
poll_interval: 5s
heartbeat_interval: 1s
drain_timeout: 1s
leave_dns: 1ms
resolver: %s
`, filepath.Join(c.env.Dir, c.name, id), id, host, at(strconv.Itoa(PortHTTPS)), at(strconv.Itoa(PortHTTP)), at(portAdmin), strings.Join(members, ", "), secret, resolver)
	config, err := c.env.WriteFile(c.name+"/"+id+".yaml", []byte(text))
	if err != nil {
		return nil, err
	}
	p, err := c.env.Start(Command{Name: c.name + "-" + id, Path: binary, Args: []string{"run", "--config", config}})
	return &Node{fleet.NodeID(id), host, p}, err
}

// ticksPerSecond is the unit of the kernel's times of processes: USER_HZ, which is 100 on every Linux.
const ticksPerSecond = 100

// Processor is the processor time that the node's worker has used.
func (n *Node) Processor() (time.Duration, error) {
	children, err := childrenOf(n.PID())
	if err != nil {
		return 0, fmt.Errorf("find the worker of %s: %w", n.ID, err)
	}
	if len(children) != 1 {
		return 0, fleet.NewError(fleet.ErrUnavailable, "node", "the supervisor of %s has %d children, wanted its worker alone", n.ID, len(children))
	}
	return ProcessorOf(children[0])
}

// childrenOf are the children of all threads of a process.
func childrenOf(pid int) (out []int, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended
		}
		for word := range strings.FieldsSeq(string(b)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				return nil, err
			}
			out = append(out, child)
		}
	}
	return out, nil
}

// ProcessorOf is the processor time that a process has used.
func ProcessorOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the times of process %d: %w", pid, err)
	}
	// The name, in brackets, may have blanks; utime and stime are the 14th and 15th fields.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const utime, stime = 11, 12
	if len(fields) <= stime {
		return 0, fleet.NewError(fleet.ErrCorrupt, "process", "/proc/%d/stat has %d fields", pid, len(fields))
	}
	var ticks int64
	for _, f := range [][]byte{fields[utime], fields[stime]} {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the times of process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / ticksPerSecond), nil
}
