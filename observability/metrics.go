package observability

import "slices"

// MetricKind is the type of a metric in the exposition.
type MetricKind string

// The kinds of metric.
const (
	KindCounter   MetricKind = "counter"
	KindHistogram MetricKind = "histogram"
	KindGauge     MetricKind = "gauge"
)

// Metric is one row of the registry: what may be emitted, and what dashboards and alerts are generated from.
type Metric struct {
	// Name is what Prometheus shows. Counters end in _total, histograms in _seconds.
	Name string
	Kind MetricKind
	// Unit is UCUM: "s", "By", or "1" for a count or a ratio.
	Unit string
	// Description is one sentence for people.
	Description string
	// Labels are the keys that every series of the metric has, no more and no less. They never hold a request's
	// data, and their values are few: kinds, reasons, names of nodes and tenants.
	Labels []string
}

// Metrics lists every metric that Edgefleet emits, in the order of the areas below.
func Metrics() []Metric {
	return slices.Concat(
		processMetrics,
		hostMetrics,
		proxyMetrics,
		nodeMetrics,
		spoolMetrics,
		eventMetrics,
		wafMetrics,
		raftMetrics,
		kekMetrics,
		apiMetrics,
		auditMetrics,
		consulMetrics,
		backupMetrics,
	)
}

var processMetrics = []Metric{
	{Name: "edgefleet_build_info", Kind: KindGauge, Unit: "1", Description: "Always 1; the label is the version of the running program.", Labels: []string{"version"}},
}

// nodeMetrics are those of an edge node's state and session.
var nodeMetrics = []Metric{
	{Name: "edgefleet_node_heads_total", Kind: KindCounter, Unit: "1", Description: "Heads that the node applied or refused.", Labels: []string{"kind", "result"}},
	{Name: "edgefleet_node_head_generation", Kind: KindGauge, Unit: "1", Description: "Generation of the head that the node serves.", Labels: []string{"kind"}},
	{Name: "edgefleet_node_state_damaged_total", Kind: KindCounter, Unit: "1", Description: "Stored last-known-good state that could not be used at start."},
	{Name: "edgefleet_node_session_connected", Kind: KindGauge, Unit: "1", Description: "Whether the node is connected to a member by NATS."},
	{Name: "edgefleet_node_polls_total", Kind: KindCounter, Unit: "1", Description: "Polls for heads.", Labels: []string{"transport", "result"}},
	{Name: "edgefleet_node_blobs_total", Kind: KindCounter, Unit: "1", Description: "Blobs fetched from the control plane.", Labels: []string{"transport", "result"}},
	{Name: "edgefleet_node_identity_expiry_seconds", Kind: KindGauge, Unit: "s", Description: "Time until the node's own certificate ends; negative when it has ended."},
}

var proxyMetrics = []Metric{
	{Name: "edgefleet_proxy_requests_total", Kind: KindCounter, Unit: "1", Description: "Requests by class of the answer's status; aborted ones had no answer that the client waited for.", Labels: []string{"class"}},
	{Name: "edgefleet_proxy_request_seconds", Kind: KindHistogram, Unit: "s", Description: "Time from a request's headers to the end of its answer."},
	{Name: "edgefleet_proxy_active_requests", Kind: KindGauge, Unit: "1", Description: "Requests and WebSockets in progress."},
	{Name: "edgefleet_proxy_refused_total", Kind: KindCounter, Unit: "1", Description: "Requests that the edge refused before they reached rules or an origin, by reason.", Labels: []string{"reason"}},
	{Name: "edgefleet_proxy_blocked_total", Kind: KindCounter, Unit: "1", Description: "Requests that were judged malicious and blocked."},
	{Name: "edgefleet_proxy_origin_errors_total", Kind: KindCounter, Unit: "1", Description: "Failed attempts to get an answer from an origin, by reason.", Labels: []string{"reason"}},
	{Name: "edgefleet_proxy_origins_out", Kind: KindGauge, Unit: "1", Description: "Origins that get requests only where no other of the host is left, because they failed or did not pass a health check."},
	{Name: "edgefleet_proxy_tls_handshake_failures_total", Kind: KindCounter, Unit: "1", Description: "TLS handshakes with clients that failed, by reason.", Labels: []string{"reason"}},
	{Name: "edgefleet_proxy_panics_total", Kind: KindCounter, Unit: "1", Description: "Panics that were fenced to one request."},
}

// spoolMetrics are those of an edge node's event spool.
var spoolMetrics = []Metric{
	{Name: "edgefleet_spool_events", Kind: KindGauge, Unit: "1", Description: "Events on the node's disk that a majority of members does not hold yet."},
	{Name: "edgefleet_spool_bytes", Kind: KindGauge, Unit: "By", Description: "Size of the spool on the node's disk."},
	{Name: "edgefleet_spool_dropped_total", Kind: KindCounter, Unit: "1", Description: "Events that were lost, by reason.", Labels: []string{"reason"}},
	{Name: "edgefleet_spool_released_total", Kind: KindCounter, Unit: "1", Description: "Events that left the spool because a majority of members holds them."},
	{Name: "edgefleet_spool_resent_total", Kind: KindCounter, Unit: "1", Description: "Events that were sent again because they were not acknowledged in time."},
}

// eventMetrics are those of a member's event store.
var eventMetrics = []Metric{
	{Name: "edgefleet_events_stored_total", Kind: KindCounter, Unit: "1", Description: "Events that this member wrote to its store."},
	{Name: "edgefleet_events_duplicates_total", Kind: KindCounter, Unit: "1", Description: "Events that arrived again and were held already."},
	{Name: "edgefleet_events_rejected_total", Kind: KindCounter, Unit: "1", Description: "Messages on the event stream that are not events of the node that sent them, by reason.", Labels: []string{"reason"}},
	{Name: "edgefleet_events_put_seconds", Kind: KindHistogram, Unit: "s", Description: "Time to write one batch of events durably."},
	{Name: "edgefleet_events_watermark_gaps", Kind: KindGauge, Unit: "1", Description: "Boots of nodes with a sequence number that this member has missed for more than a minute."},
	{Name: "edgefleet_events_missed_total", Kind: KindCounter, Unit: "1", Description: "Sequence numbers that this member never got although a majority of members did."},
	{Name: "edgefleet_events_repaired_total", Kind: KindCounter, Unit: "1", Description: "Events that this member fetched from another because it had missed or lost them."},
	{Name: "edgefleet_events_missing", Kind: KindGauge, Unit: "1", Description: "Sequence numbers of events that this member lacks and has not fetched from the others yet."},
	{Name: "edgefleet_events_tail_skipped_total", Kind: KindCounter, Unit: "1", Description: "Events that a reader of the tail was too slow for."},
}

// hostMetrics are about names: the edge's own DNS, and certificates.
var hostMetrics = []Metric{
	{Name: "edgefleet_dns_queries_total", Kind: KindCounter, Unit: "1", Description: "DNS queries by what became of them.", Labels: []string{"outcome"}},
	{Name: "edgefleet_dns_transfers_total", Kind: KindCounter, Unit: "1", Description: "Transfers of the zone that were asked for, by what became of them: sent, current, refused, busy or failed.", Labels: []string{"outcome"}},
	{Name: "edgefleet_dns_sets_held", Kind: KindGauge, Unit: "1", Description: "Sets of nodes that DNS answers with from which nobody is withdrawn, because more than half would go."},
	{Name: "edgefleet_dns_nodes", Kind: KindGauge, Unit: "1", Description: "Nodes in DNS (in), and out of it until they are healthy for long enough or for a decision (out), by node group.", Labels: []string{"group", "dns"}},
	{Name: "edgefleet_hosts", Kind: KindGauge, Unit: "1", Description: "Hosts by phase and status, as this member's state has them.", Labels: []string{"phase", "status"}},
	{Name: "edgefleet_certificate_least_life_seconds", Kind: KindGauge, Unit: "s", Description: "Life left of the certificate that ends first; negative once one has expired, absent without certificates.", Labels: nil},
	{Name: "edgefleet_certificate_uploads_needed", Kind: KindGauge, Unit: "1", Description: "Hosts whose certificate the edge does not order, and which need another one or their first."},
	{Name: "edgefleet_certificate_revocations_waiting", Kind: KindGauge, Unit: "1", Description: "Certificates that are to be revoked, and wait for their successor or the certificate authority."},
	{Name: "edgefleet_acme_orders_total", Kind: KindCounter, Unit: "1", Description: "Attempts to get a certificate from the certificate authority, by challenge and by outcome: issued, or the reason of the failure.", Labels: []string{"challenge", "outcome"}},
	{Name: "edgefleet_acme_order_seconds", Kind: KindHistogram, Unit: "s", Description: "Time from asking for a certificate to having it.", Labels: []string{"challenge"}},
}

// kekMetrics are those of a member's key-encryption key.
var kekMetrics = []Metric{
	{Name: "edgefleet_kek_loaded", Kind: KindGauge, Unit: "1", Description: "Whether this member has the key-encryption key: without it, it votes and serves reads, and neither signs nor seals."},
	{Name: "edgefleet_kek_provider_up", Kind: KindGauge, Unit: "1", Description: "Whether the provider of this member's key-encryption key (kek_file, a credential, a key management service) gave it when it was last asked; where it did not, a restart leaves the member without."},
}

// raftMetrics are those of a member's part in the replicated log.
var raftMetrics = []Metric{
	{Name: "edgefleet_raft_is_leader", Kind: KindGauge, Unit: "1", Description: "Whether this member leads."},
	{Name: "edgefleet_raft_term", Kind: KindGauge, Unit: "1", Description: "The term that this member is in; it grows with every election."},
	{Name: "edgefleet_raft_last_index", Kind: KindGauge, Unit: "1", Description: "Index of the last entry in this member's log."},
	{Name: "edgefleet_raft_applied_index", Kind: KindGauge, Unit: "1", Description: "Index of the last entry handed to this member's state machine."},
	{Name: "edgefleet_raft_peers", Kind: KindGauge, Unit: "1", Description: "Members in the configuration, this one included."},
	{Name: "edgefleet_raft_apply_seconds", Kind: KindHistogram, Unit: "s", Description: "Time that the state machine took for one command."},
	{Name: "edgefleet_raft_log_ranges_verified_total", Kind: KindCounter, Unit: "1", Labels: []string{"result"}, Description: "Ranges of the log that were read back and compared with what the leader wrote, by result."},
	{Name: "edgefleet_raft_refused_connections_total", Kind: KindCounter, Unit: "1", Description: "Connections to the Raft port that did not prove to be from a member."},
}

// wafMetrics are those of an edge node's rule engine.
var wafMetrics = []Metric{
	{Name: "edgefleet_waf_verdicts_total", Kind: KindCounter, Unit: "1", Description: "Requests by verdict: clean, experimental, monitored, blocked, or unjudged because the engine failed.", Labels: []string{"verdict", "tenant"}},
	{Name: "edgefleet_waf_errors_total", Kind: KindCounter, Unit: "1", Description: "Failures of the rule engine, which are fenced to one request, by reason.", Labels: []string{"reason", "tenant"}},
	{Name: "edgefleet_waf_partial_total", Kind: KindCounter, Unit: "1", Description: "Requests of which a part was not inspected, by cause.", Labels: []string{"cause"}},
	{Name: "edgefleet_waf_fail_policy_total", Kind: KindCounter, Unit: "1", Description: "Requests that were not wholly judged, by cause and by what the fail policy and the mode made of them: passed or refused.", Labels: []string{"cause", "outcome", "tenant"}},
	{Name: "edgefleet_waf_rule_panics_total", Kind: KindCounter, Unit: "1", Description: "Panics of tenants' rules, each of which cost that rule alone, for one request.", Labels: []string{"tenant", "rule"}},
	{Name: "edgefleet_waf_judge_seconds", Kind: KindHistogram, Unit: "s", Description: "Time to judge one request, without waiting for a slot."},
}

// auditMetrics are about the audit chain as a member holds it.
var auditMetrics = []Metric{
	{Name: "edgefleet_audit_segments", Kind: KindGauge, Unit: "1", Description: "Sealed segments of the audit chain."},
	{Name: "edgefleet_audit_segments_missing", Kind: KindGauge, Unit: "1", Description: "Sealed segments that are not on this member's disk; it fetches them from the others."},
	{Name: "edgefleet_audit_state_entries", Kind: KindGauge, Unit: "1", Description: "Audit entries in this member's state; it grows when entries cannot be sealed or a majority of members does not hold the segments."},
}

// apiMetrics are about the public API of a member.
var apiMetrics = []Metric{
	{Name: "edgefleet_api_requests_total", Kind: KindCounter, Unit: "1", Description: "Requests to the API by method and status.", Labels: []string{"method", "status"}},
	{Name: "edgefleet_api_nodes_refused_total", Kind: KindCounter, Unit: "1", Description: "Requests of nodes that were refused because too many of all nodes together were under way at the member (api_node_concurrency)."},
	{Name: "edgefleet_api_request_seconds", Kind: KindHistogram, Unit: "s", Description: "Time from a request to its answer; streams count when they end.", Labels: []string{"method"}},
}

// consulMetrics are about Consul, where it is configured, and about origins that are services in it.
var consulMetrics = []Metric{
	{Name: "edgefleet_consul_degraded", Kind: KindGauge, Unit: "1", Description: "Whether something that Consul is asked for does not work now; 0 on a member without Consul."},
	{Name: "edgefleet_consul_requests_total", Kind: KindCounter, Unit: "1", Description: "What Consul was asked for, by result.", Labels: []string{"operation", "result"}},
	{Name: "edgefleet_consul_registered", Kind: KindGauge, Unit: "1", Description: "Services that this member keeps registered in Consul."},
	{Name: "edgefleet_origin_services", Kind: KindGauge, Unit: "1", Description: "Origins that are Consul services, by the state of their condition.", Labels: []string{"state"}},
}

// backupMetrics are about scheduled backups of the control plane; the leader has them.
var backupMetrics = []Metric{
	{Name: "edgefleet_backups_total", Kind: KindCounter, Unit: "1", Description: "Scheduled backups, by result.", Labels: []string{"result"}},
	{Name: "edgefleet_backup_age_seconds", Kind: KindGauge, Unit: "s", Description: "Age of the newest scheduled backup; only the leader has it, and only if there is one."},
}
