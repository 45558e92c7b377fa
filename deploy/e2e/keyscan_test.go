package e2e_test

import (
	"crypto/tls"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/deploy/e2e/keyscan"
	"github.com/edgefleet/edgefleet/fleet"
)

// places are the only ones where a secret may be. What is not needed here any more fails the test.
var places = []keyscan.Allowed{
	{Path: "config/m*.kek", Classes: []string{classKEK}, Reason: "the file that kek_file names: each member's copy, 0600, not in the data directory"},
	{Path: "config/secondary.key", Classes: []string{classTSIG}, Reason: "the file that tsig_key_file names"},
	{Path: "config/n*.token", Classes: []string{classJoinToken}, Reason: "the file that join_token_file names: it is good for one node, once, for 15 minutes"},
	{Path: "data/m*/identity/*.key", Classes: []string{classMember}, Reason: "a member's own identity, 0600: it must start alone"},
	{Path: "data/m1/operator.token", Classes: []string{classAPIToken}, Reason: "the first operator token, which init wrote for people to take away, 0600"},
	{Path: "data/m1/recovery.key", Classes: []string{classRecovery}, Reason: "the recovery key, which init wrote for people to take offline, 0600"},
	{Path: "data/n*/identity/*.key", Classes: []string{classNode}, Reason: "a node's own identity, 0600: it must start alone; a stolen disk means revoke and rekey"},
	{Path: "pebble/*", Classes: []string{keyscan.Unnamed}, Reason: "the test authority's own files; it is not ours"},
}

// watch begins to capture what leaves the processes of a fleet that pushes to the collector.
func (d *disaster) watch(c *collector) *secrets {
	d.t.Helper()
	cluster, err := client.Get[client.ClusterStatus](d.t.Context(), d.operator(d.t), "/v1/cluster", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return &secrets{
		disaster: d, collector: c, tap: newTap(d.t, d.wholeFleet, d.data("m1"), cluster.ID),
		seen: map[string]bool{}, counts: map[string]int{}, captured: map[string][]byte{},
	}
}

// scan looks for every secret in every file, log, message, trace and answer.
func (s *secrets) scan() {
	s.t.Helper()
	for _, class := range secretClasses {
		if s.counts[class] == 0 {
			s.t.Errorf("the fleet had no %s to look for", class)
		}
	}
	s.t.Logf("secrets: %v", s.counts)
	s.hears()
	await(s.t, "a scheduled backup was made", func() bool {
		made, err := filepath.Glob(filepath.Join(s.dir, "backups", "*"))
		return err == nil && len(made) > 0
	})
	s.readsEverything()
	scanner, err := keyscan.New(s.known)
	if err != nil {
		s.t.Fatal(err)
	}
	found, read, err := scanner.Dir(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for name, b := range s.collector.all() {
		s.captured["otlp "+name] = b
	}
	messages, _ := s.tap.heard()
	s.captured["nats"] = messages
	for _, name := range slices.Sorted(maps.Keys(s.captured)) {
		read += int64(len(s.captured[name]))
		found = append(found, scanner.Bytes(name, s.captured[name])...)
	}
	s.t.Logf("%d bytes were read", read)
	leaks, unused := keyscan.Judge(found, places)
	for _, l := range leaks {
		s.t.Errorf("a secret lies where none may be: %v", l)
	}
	for _, a := range unused {
		s.t.Errorf("%s is allowed to have %q (%s), and has not: take it out of the table", a.Path, a.Classes, a.Reason)
	}
}

// hears waits until the captures have what they are for.
func (s *secrets) hears() {
	s.t.Helper()
	var kinds map[string]int
	defer func() {
		if s.t.Failed() {
			s.t.Logf("messages: %v", kinds)
		}
	}()
	await(s.t, "messages of every kind were captured", func() bool {
		_, kinds = s.tap.heard()
		return !slices.ContainsFunc([]string{"hd", "poll", "blob", "st", "ev", "_INBOX"}, func(k string) bool { return kinds[k] == 0 })
	})
	await(s.t, "traces and metrics were pushed", func() bool {
		return s.collector.has("/v1/traces", "controlplane") && s.collector.has("/v1/metrics", "controlplane", "edgenode")
	})
}

// unread are the reads of the API that are left out.
var unread = map[string]string{
	"/v1/approvals/{id}":                  "there is no approval",
	"/v1/cluster/audit/segments/{digest}": "there are no segments yet; their files are scanned",
	"/v1/cluster/events/held":             "for members; it has numbers alone",
	"/v1/cluster/events/part":             "for members; it has what the list of events has",
	"/v1/drills/{id}":                     "there was no drill",
	"/v1/edge/blobs/{digest}":             "for nodes; the same bytes are captured on the bus",
	"/v1/tenants/{tenant}/events:tail":    "it does not end; it has what the list has",
	"/v1/tenants/{tenant}/users/{id}":     "there are no users",
	"/v1/users/{id}":                      "there are no users",
	"/v1/cluster/stats":                   "for members",
	"/v1/cluster/audit/held":              "for members",
}

var parameter = regexp.MustCompile(`/\{[a-z]+\}`)

// readsEverything asks the API for all that its description names, as the operator, and remembers the answers.
func (s *secrets) readsEverything() {
	s.t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(s.t, s.CACert), MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: patience}
	get := func(path string) (int, []byte) {
		status, b := s.answer(s.t.Context(), s.t, c, s.Token, path)
		s.remember("GET "+path, b)
		return status, b
	}
	_, b := get("/v1/openapi.json")
	var description struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.NewDecoder(strings.NewReader(string(b))).Decode(&description); err != nil {
		s.t.Fatal(err)
	}
	var left []string
	for _, template := range slices.Sorted(maps.Keys(description.Paths)) {
		if _, ok := description.Paths[template]["get"]; !ok {
			continue
		}
		if _, ok := unread[template]; ok {
			left = append(left, template)
			continue
		}
		path := strings.NewReplacer("{tenant}", string(s.Tenant), "{host}", string(s.own)).Replace(template)
		if at := parameter.FindStringIndex(path); at != nil {
			_, b := get(path[:at[0]])
			path = path[:at[0]] + "/" + first(b, path[at[0]+2:at[1]-1]) + path[at[1]:]
		}
		if status, b := get(path); status != http.StatusOK {
			s.t.Errorf("GET %s: %d %.300s; say in the table why it is not read", path, status, b)
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(unread)), left); diff != "" {
		s.t.Errorf("the table of what is not read: %s", diff)
	}
}

// first is what the first object of a list, one of kind, is called in paths.
func first(list []byte, kind string) string {
	var page struct {
		Items []map[string]any `json:"items"`
	}
	if json.NewDecoder(strings.NewReader(string(list))).Decode(&page) != nil || len(page.Items) == 0 {
		return "none"
	}
	for _, name := range []string{"id", "name", kind + "_id"} {
		if v, ok := page.Items[0][name].(string); ok {
			return url.PathEscape(v)
		}
	}
	return "none"
}

// restartNode starts one edge again, and waits until it serves.
func (s *secrets) restartNode(t *testing.T, node fleet.NodeID) {
	t.Helper()
	s.do("kill", string(node))
	s.do("start", string(node))
	for i, e := range s.Edges {
		await(t, e.ID+" serves", func() bool {
			status, _, err := s.visitors[i].get(t.Context(), "https", "/")
			return err == nil && status == http.StatusOK
		})
	}
}
