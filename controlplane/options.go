package controlplane

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/configfile"
)

// Config is the configuration file of a member.
type Config struct {
	// DataDir holds the identity, the log, the bus's files and the event store. Required, absolute.
	DataDir string `yaml:"data_dir"`
	// Member is this member's id. Required.
	Member fleet.MemberID `yaml:"member"`
	// ClusterZone is the edge zone, the DNS zone delegated to the members; it is fixed at init. Required for init.
	ClusterZone fleet.HostName `yaml:"cluster_zone"`
	// Advertise is the IP address or name by which others reach this member. Required.
	Advertise string `yaml:"advertise"`
	// Region is where this member runs, such as eu-west: 'fleetctl cluster members' shows it, and a drill can lose all
	// members of one region. Optional.
	Region fleet.RegionName `yaml:"region"`
	// APIListen is where the API listens; default ":8440".
	APIListen string `yaml:"api_listen"`
	// APIRate is how many requests a second one caller (an API token, a node, else an address) may send to this member in
	// the long run; default 1000. Below 0 there is no limit.
	APIRate int `yaml:"api_rate"`
	// APIBurst is how many requests one caller may send at once; default 2000.
	APIBurst int `yaml:"api_burst"`
	// APIConcurrency is how many requests of one caller may be under way at this member; default 256. Below 0 there is no
	// limit.
	APIConcurrency int `yaml:"api_concurrency"`
	// APINodeConcurrency is how many requests of all nodes together (enrolments, renewals, polls, blobs) may be under way
	// at this member; default 256. One more is told to come back, so that a stampede leaves room for operators. Below 0
	// there is no limit.
	APINodeConcurrency int `yaml:"api_node_concurrency"`
	// RaftListen is where other members' Raft connects; default ":8441".
	RaftListen string `yaml:"raft_listen"`
	// NATSListen is where nodes' NATS connections arrive; default ":8442".
	NATSListen string `yaml:"nats_listen"`
	// NATSRouteListen is where other members' NATS servers connect; default ":8443".
	NATSRouteListen string `yaml:"nats_route_listen"`
	// DNSListen is where the authoritative DNS server listens, UDP and TCP; default ":53".
	DNSListen string `yaml:"dns_listen"`
	// DNS says what the zone has beside the hosts, and who else serves it; give every member the same.
	DNS DNS `yaml:"dns"`
	// AdminListen serves /metrics, /healthz, /readyz and /debug/pprof; default "127.0.0.1:8444".
	AdminListen string `yaml:"admin_listen"`
	// KEKFile holds the key-encryption key. init makes it if it is missing. Without it a member votes and serves reads,
	// and neither issues nor seals.
	KEKFile string `yaml:"kek_file"`
	// ACME is the certificate authority that certificates of hosts come from; without a directory none are ordered,
	// and hosts take the ones that their owners upload.
	ACME ACME `yaml:"acme"`
	// ACMESecond is another certificate authority, with an account and limits of its own. It is asked when the first has not
	// answered three times in a row, until that is back, and for names whose CAA records forbid the first; never where CAA
	// forbids it.
	ACMESecond ACME `yaml:"acme_second"`
	// Resolvers are the DNS servers, IP:port, that hosts' records are looked up at; default: the system's.
	Resolvers []string `yaml:"resolvers"`
	// TrustedEdgeRootsFile holds the roots (PEM) that hosts' certificates must chain to before a host is active; empty:
	// the system's.
	TrustedEdgeRootsFile string `yaml:"trusted_edge_roots_file"`
	// EdgeHTTPSPort is the port at which a host's certificate is checked on the edges; default 443.
	EdgeHTTPSPort uint16 `yaml:"edge_https_port"`
	// RaftTimeout is how long a member waits for the leader before it stands for election, 100ms to 10s; default 250ms, for
	// members within a region. Raise it where members are far apart or hosts are overloaded.
	RaftTimeout time.Duration `yaml:"raft_timeout"`
	// SnapshotBytes is by how much the log grows, in bytes, before a snapshot is taken and the log behind it dropped, from
	// 1048576 (1 MiB) to 1099511627776 (1 TiB); default 67108864. After 8192 entries one is taken too.
	SnapshotBytes int `yaml:"snapshot_bytes"`
	// Nonvoter makes this member a standby: it keeps a copy and answers reads, and never votes.
	Nonvoter bool `yaml:"nonvoter"`
	// Autopilot says what the leader does with members by itself; give every member the same.
	Autopilot Autopilot `yaml:"autopilot"`
	// ReapAfter is the heartbeat age at which a node is down and leaves DNS; default 15s.
	ReapAfter time.Duration `yaml:"reap_after"`
	// EventRetention is how long events are kept; default 720h.
	EventRetention time.Duration `yaml:"event_retention"`
	// Events says where events are stored; by default each member keeps them below data_dir.
	Events Events `yaml:"events"`
	// AuditKeep is how many audit entries stay in the replicated state, 100 to 1000000; default 10000. Older ones are in
	// files on the members.
	AuditKeep int `yaml:"audit_keep"`
	// Backup makes scheduled backups; without backup.to none are made.
	Backup Backup `yaml:"backup"`
	// Drills lets an operator kill this member for a drill; default false. Its service manager must start it again.
	Drills bool `yaml:"drills"`
	// OTLPEndpoint receives traces and metrics, for example http://127.0.0.1:4318; empty sends none.
	OTLPEndpoint string `yaml:"otlp_endpoint"`
	// Consul is where members find each other and are registered with the nodes, and what origins of hosts may be services
	// of. Optional; its loss changes nothing for traffic and writes.
	Consul Consul `yaml:"consul"`
	// RetryJoin is where join without --address, and a member whose addresses of the others are out of date, look for
	// members: API addresses, host:port, and the word consul for the members that are registered there.
	RetryJoin []string `yaml:"retry_join"`
	// LogLevel is debug, info, warn or error; default info.
	LogLevel string `yaml:"log_level"`
	// LogFormat is text or json; default text.
	LogFormat string `yaml:"log_format"`
}

// ACME is a certificate authority (RFC 8555).
type ACME struct {
	// Directory is the URL of the CA's directory.
	Directory string `yaml:"directory"`
	// CAFile holds the roots (PEM) that the directory's own certificate chains to; empty: the system's.
	CAFile string `yaml:"ca_file"`
	// Email is the contact of the account.
	Email string `yaml:"email"`
	// Profile is the certificate profile to ask for; empty: tlsserver where the CA offers it, else what the CA chooses.
	Profile string `yaml:"profile"`
	// ExternalAccountID is the key id of the account that you have with a CA that demands one (external account binding).
	ExternalAccountID string `yaml:"external_account_id"`
	// ExternalAccountKeyFile holds the MAC key of external_account_id, base64url as the CA hands it out.
	ExternalAccountKeyFile string `yaml:"external_account_key_file"`
	// CAA are the names by which CAA records allow the authority, such as letsencrypt.org, if its directory does not say.
	CAA []string `yaml:"caa"`
	// Limits are what the authority allows; an order that would go beyond waits. Empty: those of Let's Encrypt for its
	// directories, and none for others.
	Limits ACMELimits `yaml:"limits"`
}

// ACMELimits bound what is asked of a certificate authority; 0 is the default for it, -1 no limit.
type ACMELimits struct {
	// Orders of the account within 3 hours; a tenth is kept for renewals.
	Orders int `yaml:"orders"`
	// Failures is the failed validations of one name within an hour.
	Failures int `yaml:"failures"`
	// Certificates of one registered domain within a week; renewals do not count.
	Certificates int `yaml:"certificates"`
}

// Consul is an agent of Consul, best one on the same host.
type Consul struct {
	// Address is the agent's HTTP API: host:port or a URL, such as 127.0.0.1:8500; empty: there is no Consul.
	Address string `yaml:"address"`
	// TokenFile holds the ACL token (deploy/consul/policy.hcl says what it needs). It is read for every call.
	TokenFile string `yaml:"token_file"`
	// CAFile holds the roots (PEM) that an https address's certificate chains to; empty: the system's.
	CAFile string `yaml:"ca_file"`
	// CertFile is this member's certificate (PEM), for an agent that asks for one.
	CertFile string `yaml:"cert_file"`
	// KeyFile is the key (PEM) of cert_file.
	KeyFile string `yaml:"key_file"`
	// Datacenter is the one that is asked for services; empty: the agent's.
	Datacenter string `yaml:"datacenter"`
	// MemberService is the service that members are registered as; default "edgefleet-controlplane".
	MemberService string `yaml:"member_service"`
	// NodeService is the service that edge nodes are registered as; default "edgefleet-edge".
	NodeService string `yaml:"node_service"`
	// Tags are added to every registration.
	Tags []string `yaml:"tags"`
	// TTL is how long a registration stays as it is when nothing is heard from its member; default 30s.
	TTL time.Duration `yaml:"ttl"`
	// DeregisterAfter is how long Consul keeps a registration that is critical, at least 1m; default 1h.
	DeregisterAfter time.Duration `yaml:"deregister_after"`
}

// Events says where events are stored.
type Events struct {
	// Postgres is a PostgreSQL that all members share, instead of a store for each; give every member the same.
	Postgres EventsPostgres `yaml:"postgres"`
}

// EventsPostgres says where a PostgreSQL is. The connection string holds a password, so it has no place in this file.
type EventsPostgres struct {
	// DSNFile holds the connection string, such as postgres://edgefleet:PASSWORD@db.example.net/edgefleet?sslmode=verify-full.
	// It is read when the member starts.
	DSNFile string `yaml:"dsn_file"`
	// DSNEnv names the environment variable that holds the connection string, instead of dsn_file.
	DSNEnv string `yaml:"dsn_env"`
}

// Backup is where and how often the leader makes backups. Each needs the KEK of its cluster to be of use.
type Backup struct {
	// To is where backups are kept: file:///directory (best a mount that all members share: the leader writes), s3://bucket/prefix, or the https
	// URL of an S3-compatible service with bucket and prefix.
	To string `yaml:"to"`
	// Every is the time between two backups, 1m to 168h; default 1h.
	Every time.Duration `yaml:"every"`
	// Keep is how many backups are kept, 1 to 10000; default 48.
	Keep int `yaml:"keep"`
	// Region is the bucket's region.
	Region string `yaml:"region"`
	// CredentialsFile holds the access key id and, on the next line, the secret key of the bucket. It is read for every
	// call.
	CredentialsFile string `yaml:"credentials_file"`
	// CAFile holds the roots (PEM) that the service's certificate chains to; empty: the system's.
	CAFile string `yaml:"ca_file"`
}

// Autopilot says when a member is healthy, when a newcomer votes, and whether dead members are removed.
type Autopilot struct {
	// Stabilization is how long a newcomer must be healthy before it votes; default 1s.
	Stabilization time.Duration `yaml:"stabilization"`
	// LastContact is how long ago a healthy member has heard from the leader at most; default 1s.
	LastContact time.Duration `yaml:"last_contact"`
	// MaxTrailing is how many entries a healthy member is behind at most; default 500.
	MaxTrailing int `yaml:"max_trailing"`
	// RemoveDead removes members that are silent for dead_after, one at a time and never below min_quorum voters; a member
	// that was removed must join again.
	RemoveDead bool `yaml:"remove_dead"`
	// DeadAfter is how long a member must be silent to be removed, at least 1m; default 24h.
	DeadAfter time.Duration `yaml:"dead_after"`
	// MinQuorum is the number of voters below which nobody is removed; default 3.
	MinQuorum int `yaml:"min_quorum"`
}

// DNS configures the edge zone.
type DNS struct {
	// Bake is how long a node that left DNS must be healthy before it is back, up to 1h; default 15s.
	Bake time.Duration `yaml:"bake"`
	// CAA are the certificate authorities that may issue for names that point at the edge, as they stand in CAA records, such
	// as "letsencrypt.org; accounturi=https://acme-v02.api.letsencrypt.org/acme/acct/1"; without any, the zone has no CAA
	// records.
	CAA []string `yaml:"caa"`
	// Unlimited are networks, such as 192.0.2.53/32, whose queries are not rate limited: resolvers and monitoring of your
	// own. Whoever can forge one of their addresses has no limit either.
	Unlimited []netip.Prefix `yaml:"unlimited"`
	// Secondaries may transfer the zone, and are notified when it changes.
	Secondaries []Secondary `yaml:"secondaries"`
	// Push is an outside primary for the zone; the leader keeps the hosts' records in it.
	Push Push `yaml:"push"`
}

// Push is a name server of somebody else that has the zone as primary and takes updates (RFC 2136).
type Push struct {
	// Server is its IP:port; empty: there is none. It must allow transfers and updates with the key.
	Server string `yaml:"server"`
	// TSIGKeyFile holds the key (RFC 8945), as tsig-keygen writes it.
	TSIGKeyFile string `yaml:"tsig_key_file"`
	// Every is the time between two full comparisons, which repair what others changed, 1s to 24h; default 5m.
	Every time.Duration `yaml:"every"`
}

// Secondary is a name server that transfers the zone.
type Secondary struct {
	// Address is its IP:port: notifications go there, and transfers are allowed from that IP.
	Address string `yaml:"address"`
	// TSIGKeyFile holds the key (RFC 8945) that signs both, as tsig-keygen writes it.
	TSIGKeyFile string `yaml:"tsig_key_file"`
	// Name is published as a name server of the zone, such as ns.example.net; empty publishes none.
	Name fleet.HostName `yaml:"name"`
}

// LoadConfig reads and checks the file at path.
func LoadConfig(path string) (Config, error) {
	var c Config
	err := configfile.Load(path, &c, func() error {
		c = c.withDefaults()
		return c.validate()
	})
	return c, err
}

func (c Config) withDefaults() Config {
	setDefault(&c.APIListen, ":8440")
	setDefault(&c.APIRate, 1000)
	setDefault(&c.APIBurst, 2000)
	setDefault(&c.APIConcurrency, 256)
	setDefault(&c.APINodeConcurrency, 256)
	setDefault(&c.RaftListen, ":8441")
	setDefault(&c.NATSListen, ":8442")
	setDefault(&c.NATSRouteListen, ":8443")
	setDefault(&c.DNSListen, ":53")
	setDefault(&c.AdminListen, "127.0.0.1:8444")
	setDefault(&c.EdgeHTTPSPort, 443)
	setDefault(&c.RaftTimeout, 250*time.Millisecond)
	setDefault(&c.SnapshotBytes, 67108864)
	setDefault(&c.Autopilot.Stabilization, time.Second)
	setDefault(&c.Autopilot.LastContact, time.Second)
	setDefault(&c.Autopilot.MaxTrailing, 500)
	setDefault(&c.Autopilot.DeadAfter, 24*time.Hour)
	setDefault(&c.Autopilot.MinQuorum, 3)
	setDefault(&c.ReapAfter, 15*time.Second)
	setDefault(&c.EventRetention, 30*24*time.Hour)
	setDefault(&c.AuditKeep, 10_000)
	c.Consul = c.Consul.withDefaults()
	setDefault(&c.DNS.Bake, 15*time.Second)
	setDefault(&c.DNS.Push.Every, 5*time.Minute)
	setDefault(&c.Backup.Every, time.Hour)
	setDefault(&c.Backup.Keep, 48)
	setDefault(&c.LogLevel, "info")
	setDefault(&c.LogFormat, "text")
	return c
}

func setDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// validate returns the first problem; its Field is the YAML path of the setting.
func (c Config) validate() error {
	if !filepath.IsAbs(c.DataDir) {
		return fleet.Invalid("data_dir", "%q is not an absolute path: give one such as /var/lib/edgefleet/controlplane", c.DataDir)
	}
	if err := fleet.ValidateID("member", c.Member); err != nil {
		return err
	}
	if c.Region != "" {
		if err := fleet.ValidateID("region", c.Region); err != nil {
			return err
		}
	}
	if c.ClusterZone != "" {
		if _, err := fleet.ParseHostName(string(c.ClusterZone)); err != nil {
			return fleet.Invalid("cluster_zone", "%q is not a DNS zone such as edge.example.net", string(c.ClusterZone))
		}
	}
	if _, _, err := net.SplitHostPort(net.JoinHostPort(c.Advertise, "1")); c.Advertise == "" || err != nil {
		return fleet.Invalid("advertise", "give the IP address or name by which the other members and the nodes reach this one")
	}
	if ip, err := netip.ParseAddr(c.Advertise); err == nil && ip.IsUnspecified() {
		return fleet.Invalid("advertise", "%s is not an address that others can reach", ip)
	}
	for field, addr := range map[string]string{"api_listen": c.APIListen, "raft_listen": c.RaftListen, "nats_listen": c.NATSListen, "nats_route_listen": c.NATSRouteListen, "dns_listen": c.DNSListen, "admin_listen": c.AdminListen} {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "" || port == "0" {
			return fleet.Invalid(field, "%q is not an address to listen at: give IP:port or :port", addr)
		}
	}
	for _, r := range c.Resolvers {
		if _, err := netip.ParseAddrPort(r); err != nil {
			return fleet.Invalid("resolvers", "%q is not a DNS server's IP:port", r)
		}
	}
	if err := c.ACME.validate("acme"); err != nil {
		return err
	}
	if err := c.ACMESecond.validate("acme_second"); err != nil {
		return err
	}
	if c.ACMESecond.Directory != "" && (c.ACME.Directory == "" || c.ACME.Directory == c.ACMESecond.Directory) {
		return fleet.Invalid("acme_second.directory", "a second certificate authority needs a first one with another directory: set acme.directory")
	}
	if c.RaftTimeout < 100*time.Millisecond || c.RaftTimeout > 10*time.Second {
		return fleet.Invalid("raft_timeout", "%s is not between 100ms and 10s", c.RaftTimeout)
	}
	if c.SnapshotBytes < 1<<20 || c.SnapshotBytes > 1<<40 {
		return fleet.Invalid("snapshot_bytes", "%d is not a number of bytes from 1048576 (1 MiB) to 1099511627776 (1 TiB)", c.SnapshotBytes)
	}
	if err := c.Autopilot.validate(); err != nil {
		return err
	}
	if c.ReapAfter < time.Second || c.ReapAfter > time.Hour {
		return fleet.Invalid("reap_after", "%s is not between 1s and 1h", c.ReapAfter)
	}
	if c.APIBurst < 1 && c.APIRate > 0 {
		return fleet.Invalid("api_burst", "%d is not at least 1", c.APIBurst)
	}
	if err := c.validateConsul(); err != nil {
		return err
	}
	if err := c.Backup.validate(); err != nil {
		return err
	}
	if err := c.DNS.validate(); err != nil {
		return err
	}
	if err := c.Events.validate(); err != nil {
		return err
	}
	return c.validateTelemetry()
}

func (c Config) validateTelemetry() error {
	if c.EventRetention < 24*time.Hour {
		return fleet.Invalid("event_retention", "%s is less than a day, which is the least: give 24h or more", c.EventRetention)
	}
	if c.AuditKeep < 100 || c.AuditKeep > 1_000_000 {
		return fleet.Invalid("audit_keep", "%d is not between 100 and 1000000", c.AuditKeep)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		return fleet.Invalid("log_level", "%q is not a level: use debug, info, warn or error", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fleet.Invalid("log_format", "%q is not a format: use text or json", c.LogFormat)
	}
	return nil
}

// callerLimits are those of the API.
func (c Config) callerLimits() api.CallerLimits {
	return api.CallerLimits{Rate: max(0, c.APIRate), Burst: c.APIBurst, Concurrency: max(0, c.APIConcurrency), Nodes: max(0, c.APINodeConcurrency)}
}

// advertised is this member as others reach it.
func (c Config) advertised(software string) fleet.Member {
	at := func(listen string) string {
		_, port, _ := net.SplitHostPort(listen)
		return net.JoinHostPort(c.Advertise, port)
	}
	return fleet.Member{
		ID: c.Member, Raft: at(c.RaftListen), API: at(c.APIListen), NATS: at(c.NATSListen), NATSRoute: at(c.NATSRouteListen),
		DNS: at(c.DNSListen), Software: software, Nonvoter: c.Nonvoter, Format: command.Format, Region: c.Region,
	}
}

// path is a file below the data directory.
func (c Config) path(elem ...string) string {
	return filepath.Join(append([]string{c.DataDir}, elem...)...)
}

// Files of the data directory.
const (
	fileCluster  = "cluster.json"
	fileOperator = "operator.token"
	fileRecovery = "recovery.key"
	dirIdentity  = "identity"
)

func (c Config) certFile(name string) string { return c.path(dirIdentity, name+".crt") }
func (c Config) keyFile(name string) string  { return c.path(dirIdentity, name+".key") }

// empty reports whether the data directory is missing or empty.
func (c Config) empty() (bool, error) {
	entries, err := os.ReadDir(c.DataDir)
	if os.IsNotExist(err) {
		return true, nil
	}
	if err != nil {
		return false, fleet.Invalid("data_dir", "cannot read %s: %v", c.DataDir, err)
	}
	return len(entries) == 0, nil
}
