package faulttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// EdgeNode is an edge host in so far as the members know it: an identity with which it sends the events of a tenant.
type EdgeNode struct {
	fleet.EnrolResponse
	Source *mtls.Source
	Tenant fleet.TenantID
	// Buses are where the members' NATS servers listen: nodes reach them whatever happens between members.
	Buses []string
}

// Enrol makes a node, and a tenant that it serves.
func (p *Processes) Enrol(ctx context.Context, id fleet.NodeID) (EdgeNode, error) {
	n := EdgeNode{Tenant: fleet.TenantID("tenant-of-" + id)}
	for _, m := range p.members {
		n.Buses = append(n.Buses, "tls://"+net.JoinHostPort(m.here, portNATS))
	}
	var made client.JoinTokenCreated
	key, err := mtls.NewKey()
	if err != nil {
		return n, err
	}
	csr, err := mtls.CSR(key)
	if err != nil {
		return n, err
	}
	_, hpke, err := keyring.NewHPKEKey()
	if err != nil {
		return n, err
	}
	if err := errors.Join(
		p.made(ctx, "/v1/tenants", client.TenantCreate{ID: n.Tenant, Name: string(n.Tenant)}, nil),
		p.made(ctx, "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinNode}, &made),
	); err != nil {
		return n, err
	}
	if err := p.made(ctx, "/v1/edge/enrol", fleet.EnrolRequest{
		Token: made.Secret, Node: id, CSR: string(csr), HPKE: hpke, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Sent: time.Now(),
	}, &n.EnrolResponse); err != nil {
		return n, err
	}
	encoded, err := mtls.EncodeKey(key)
	if err != nil {
		return n, err
	}
	crt, file := filepath.Join(p.env.Dir, string(id)+".crt"), filepath.Join(p.env.Dir, string(id)+".key")
	if err := mtls.WriteIdentity(crt, file, []byte(n.Certificate), encoded); err != nil {
		return n, err
	}
	n.Source, err = mtls.OpenSource(crt, file)
	return n, err
}

// made posts, and decodes what was made.
func (p *Processes) made(ctx context.Context, path string, body, into any) error {
	a, by, err := p.anyone(ctx, "", request{method: http.MethodPost, path: path}, body)
	if err == nil && a.status != http.StatusCreated {
		err = fmt.Errorf("%w: %s answers POST %s with %d %.300s", fleet.ErrUnavailable, by.id, path, a.status, a.body)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(a.body, into)
	}
	return err
}

// Events counts how often members hold each event of a tenant: of each member, by the event's id.
func (p *Processes) Events(ctx context.Context, tenant fleet.TenantID) (map[fleet.MemberID]map[fleet.EventID]int, error) {
	out := map[fleet.MemberID]map[fleet.EventID]int{}
	for _, id := range p.ids {
		held := map[fleet.EventID]int{}
		err := p.await(ctx, "the events that "+string(id)+" holds", func(ctx context.Context) error {
			clear(held)
			return p.events(ctx, id, tenant, held)
		})
		if err != nil {
			return nil, err
		}
		out[id] = held
	}
	return out, nil
}

func (p *Processes) events(ctx context.Context, id fleet.MemberID, tenant fleet.TenantID, held map[fleet.EventID]int) error {
	for cursor := ""; ; {
		query := url.Values{"limit": {"100"}}
		if cursor != "" {
			query.Set("cursor", cursor)
		}
		a, err := p.call(ctx, nil, id, p.operator, request{method: http.MethodGet, path: "/v1/tenants/" + string(tenant) + "/events?" + query.Encode()}, nil)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%w: %s answers %d %.300s", fleet.ErrUnavailable, id, a.status, a.body)
		}
		var page client.Page[fleet.Event]
		if err == nil {
			err = json.Unmarshal(a.body, &page)
		}
		if err != nil {
			return err
		}
		for _, e := range page.Items {
			held[e.ID]++
		}
		if cursor = page.Next; cursor == "" {
			return nil
		}
	}
}
