package controlplane

import (
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/edgefleet/edgefleet/controlplane/leader/sets"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// zoneLoop is the leader's loop that decides which nodes are in DNS.
func (m *member) zoneLoop() *sets.Loop {
	return &sets.Loop{State: m.state, Proposer: m.raft, Bake: m.c.DNS.Bake, Logger: m.tel.Logger, Now: utcNow}
}

func (m *member) setsHeld() []observability.Sample {
	held := 0
	for _, s := range m.state.Read().DNSSets() {
		if s.Held != nil {
			held++
		}
	}
	return []observability.Sample{{Value: float64(held)}}
}

func (m *member) nodesInDNS() []observability.Sample {
	var out []observability.Sample
	for _, s := range m.state.Read().DNSSets() {
		if len(s.Regions) == 0 {
			out = append(out, observability.Sample{Value: float64(len(s.Nodes)), Attrs: setAttrs(s, "in")}, observability.Sample{Value: float64(len(s.Out)), Attrs: setAttrs(s, "out")})
		}
	}
	return out
}

func setAttrs(s fleet.DNSSet, where string) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("group", string(s.Group)), attribute.String("dns", where)}
}

// checkDNSSets says whether the panic threshold holds a set, and who is out of DNS.
func (m *member) checkDNSSets() fleet.Check {
	c := fleet.Check{Name: "nodes in dns", State: fleet.CheckOK}
	var held, out []string
	in := 0
	for _, s := range m.state.Read().DNSSets() {
		if s.Held != nil {
			held = append(held, fmt.Sprintf("%s: only %d of %d nodes are healthy since %s", s.Key, s.Held.Healthy, s.Held.Should, s.Held.Since.Format(time.RFC3339)))
		}
		if len(s.Regions) > 0 {
			continue
		}
		in += len(s.Nodes)
		for _, o := range s.Out {
			out = append(out, fmt.Sprintf("%s (%s)", o.Node, o.Why))
		}
	}
	c.Detail = fmt.Sprintf("%d are in", in)
	if len(out) > 0 {
		c.Detail += "; out: " + strings.Join(out, ", ")
	}
	if len(held) > 0 {
		c.State = fleet.CheckWarn
		c.Detail = strings.Join(held, "; ") + "; nobody is withdrawn, because that many failures are more likely between control plane and edge than at the edge: see the RUNBOOK's DNS withdrawal; " + c.Detail
	}
	return c
}
