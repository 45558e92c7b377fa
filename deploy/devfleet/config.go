package devfleet

import (
	"fmt"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/goccy/go-yaml"
)

// memberConfig is the configuration file of a member, as controlplane reads it.
type memberConfig struct {
	DataDir     string   `yaml:"data_dir"`
	Member      string   `yaml:"member"`
	ClusterZone string   `yaml:"cluster_zone"`
	Advertise   string   `yaml:"advertise"`
	API         string   `yaml:"api_listen"`
	Raft        string   `yaml:"raft_listen"`
	NATS        string   `yaml:"nats_listen"`
	NATSRoute   string   `yaml:"nats_route_listen"`
	DNS         string   `yaml:"dns_listen"`
	Admin       string   `yaml:"admin_listen"`
	KEKFile     string   `yaml:"kek_file"`
	ACME        acmePart `yaml:"acme"`
	Resolvers   []string `yaml:"resolvers"`
	EdgeRoots   string   `yaml:"trusted_edge_roots_file"`
	EdgePort    int      `yaml:"edge_https_port"`
	ReapAfter   string   `yaml:"reap_after"`
	LogLevel    string   `yaml:"log_level"`
	OTLP        string   `yaml:"otlp_endpoint,omitempty"`

	Backup backupPart `yaml:"backup"`

	Consul    *consulPart `yaml:"consul,omitempty"`
	RetryJoin []string    `yaml:"retry_join,omitempty"`
}

// consulPart is set when the fleet was started with a Consul.
type consulPart struct {
	Address string `yaml:"address"`
}

// backupPart keeps the backups of all members in one directory, as a mount would.
type backupPart struct {
	To    string `yaml:"to"`
	Every string `yaml:"every"`
}

type acmePart struct {
	Directory string `yaml:"directory"`
	CAFile    string `yaml:"ca_file"`
	Email     string `yaml:"email"`
	Profile   string `yaml:"profile"`
}

// nodeConfig is the configuration file of a node, as edgesupervisor reads it.
type nodeConfig struct {
	DataDir           string   `yaml:"data_dir"`
	Node              string   `yaml:"node"`
	Addresses         []string `yaml:"addresses"`
	HTTPS             string   `yaml:"https_listen"`
	HTTP              string   `yaml:"http_listen"`
	Admin             string   `yaml:"admin_listen"`
	ControlPlane      []string `yaml:"control_plane"`
	JoinTokenFile     string   `yaml:"join_token_file"`
	PollInterval      string   `yaml:"poll_interval"`
	HeartbeatInterval string   `yaml:"heartbeat_interval"`
	DrainTimeout      string   `yaml:"drain_timeout"`
	LeaveDNS          string   `yaml:"leave_dns"`
	Resolver          string   `yaml:"resolver"`
	LogLevel          string   `yaml:"log_level"`
	OTLP              string   `yaml:"otlp_endpoint,omitempty"`
}

func (f *Fleet) memberConfig(i int) memberConfig {
	ip, name := f.layout.member(i), memberName(i)
	c := memberConfig{
		DataDir: f.dir.data(name), Member: name, ClusterZone: string(Zone), Advertise: ip,
		API: at(ip, portAPI), Raft: at(ip, portRaft), NATS: at(ip, portNATS), NATSRoute: at(ip, portNATSRoute), DNS: at(ip, portDNS), Admin: at(ip, portAdmin),
		KEKFile:   f.kekFile(i),
		ACME:      acmePart{f.layout.acmeDirectory(), f.dir.pebbleFiles().ca, "ops@" + string(Zone), acmeProfile},
		Resolvers: []string{f.layout.customerDNS()}, EdgeRoots: f.acmeRootsFile(), EdgePort: portHTTPS, ReapAfter: "5s", LogLevel: "info", OTLP: f.opts.OTLP,
		Backup: backupPart{"file://" + f.dir.join("backups"), "1m"},
	}
	if f.opts.Consul != "" {
		c.Consul, c.RetryJoin = &consulPart{f.opts.Consul}, []string{"consul"}
	}
	return c
}

func (f *Fleet) nodeConfig(i int) nodeConfig {
	ip, name := f.layout.node(i), nodeName(i)
	return nodeConfig{
		DataDir: f.dir.data(name), Node: name, Addresses: []string{ip},
		HTTPS: at(ip, portHTTPS), HTTP: at(ip, portHTTP), Admin: at(ip, portAdmin),
		ControlPlane: f.layout.allMembers(portAPI), JoinTokenFile: f.dir.config(name + ".token"),
		PollInterval: "5s", HeartbeatInterval: "1s", DrainTimeout: "3s", LeaveDNS: "0s", Resolver: f.layout.customerDNS(), LogLevel: "info", OTLP: f.opts.OTLP,
	}
}

// kekFile is member i's own copy of the key-encryption key.
func (f *Fleet) kekFile(i int) string { return f.dir.config(memberName(i) + ".kek") }

// acmeRootsFile holds the roots that issued the edges' certificates.
func (f *Fleet) acmeRootsFile() string { return f.dir.join("acme-roots.pem") }

// configFile is the configuration file of a member or node.
func (f *Fleet) configFile(name string) string { return f.dir.config(name + ".yaml") }

func (f *Fleet) writeConfig(name string, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode configuration of %s: %w", name, err)
	}
	return writeFile(f.configFile(name), b)
}

// The demo customer.
const (
	demoTenant fleet.TenantID = "shop"
	demoHost   fleet.HostName = "api.shop.example"
)
