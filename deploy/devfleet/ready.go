package devfleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/edgefleet/edgefleet/fleet"
)

// Ready is the content of the ready file. API is the URL and DNS the host:port of the first member, Members has all;
// CACert and ACMERoots are paths; an edge's pid is its supervisor's.
type Ready struct {
	API         string         `json:"api"`
	Token       string         `json:"token"`
	Tenant      fleet.TenantID `json:"tenant"`
	TenantToken string         `json:"tenant_token"`
	CACert      string         `json:"cacert"`
	ACMERoots   string         `json:"acme_roots"`
	DNS         string         `json:"dns"`
	CustomerDNS string         `json:"customer_dns"`
	Zone        fleet.HostName `json:"zone"`
	Host        fleet.HostName `json:"host"`
	Origin      string         `json:"origin"`
	Edges       []ReadyEdge    `json:"edges"`
	Members     []ReadyMember  `json:"members"`
}

// ReadyEdge is one edge in the ready file.
type ReadyEdge struct {
	ID        string `json:"id"`
	Address   string `json:"address"`
	HTTPSPort int    `json:"https_port"`
	HTTPPort  int    `json:"http_port"`
	PID       int    `json:"pid"`
}

// ReadyMember is one member in the ready file.
type ReadyMember struct {
	ID  string `json:"id"`
	API string `json:"api"`
	PID int    `json:"pid"`
}

func (s *story) writeReadyFile() error {
	if s.opts.ReadyFile == "" {
		return nil
	}
	r := Ready{
		API: "https://" + at(s.layout.member(1), portAPI), Token: s.tokens.operator, Tenant: demoTenant, TenantToken: s.tokens.tenant,
		CACert: s.apiCAFile(), ACMERoots: s.acmeRootsFile(), DNS: at(s.layout.member(1), portDNS), CustomerDNS: s.layout.customerDNS(),
		Zone: Zone, Host: demoHost, Origin: "http://" + s.layout.origin(),
	}
	for i := 1; i <= s.layout.nodes; i++ {
		r.Edges = append(r.Edges, ReadyEdge{nodeName(i), s.layout.node(i), portHTTPS, portHTTP, s.pid(nodeName(i))})
	}
	for i := 1; i <= s.layout.members; i++ {
		r.Members = append(r.Members, ReadyMember{memberName(i), at(s.layout.member(i), portAPI), s.pid(memberName(i))})
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode ready file: %w", err)
	}
	return writeFile(s.opts.ReadyFile, append(b, '\n'))
}

func (f *Fleet) removeReadyFile() error {
	if f.opts.ReadyFile == "" {
		return nil
	}
	if err := os.Remove(f.opts.ReadyFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove ready file: %w", err)
	}
	return nil
}
