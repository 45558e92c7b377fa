package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// save downloads a snapshot from a member.
func (a as) save() ([]byte, snapshot.Envelope) {
	a.f.t.Helper()
	got := a.call("GET", "/v1/cluster/snapshot", nil).want(200)
	e, err := snapshot.Verify(bytes.NewReader(got.body))
	must(a.f.t, err)
	return got.body, e
}

func (f *fixture) signed(number uint64) fleet.SignedIncarnation {
	f.t.Helper()
	s, err := head.SignIncarnation(head.Incarnation{Cluster: f.cluster.ID, Number: number, HeadKeys: f.cluster.HeadKeys}, f.recovery)
	must(f.t, err)
	return s
}

func (f *fixture) statement(number uint64) string {
	f.t.Helper()
	b, err := json.Marshal(f.signed(number))
	must(f.t, err)
	return base64.StdEncoding.EncodeToString(b)
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// restore uploads a snapshot.
func (a as) restore(file io.Reader, digest, statement string) (int, []byte) {
	a.f.t.Helper()
	req, err := http.NewRequestWithContext(a.f.t.Context(), http.MethodPost, "https://"+a.addr+"/v1/cluster/restores", file)
	must(a.f.t, err)
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.Header.Set("Content-Type", snapshot.MediaType)
	req.Header.Set("Content-Digest", digest)
	req.Header.Set("Edgefleet-Statement", statement)
	res, err := a.http.Do(req)
	must(a.f.t, err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	must(a.f.t, err)
	return res.StatusCode, b
}

func (f *fixture) hashes() []string {
	f.t.Helper()
	var out []string
	for _, m := range f.members {
		h, err := m.state.Read().Hash()
		must(f.t, err)
		out = append(out, h)
	}
	return out
}

func TestASnapshotIsSavedByAnyMemberAndRestoredOnAll(t *testing.T) {
	f := open(t, 3)
	f.op().call("POST", "/v1/tenants", client.TenantCreate{ID: "acme"}).want(201)
	file, e := f.at(1, f.operator).save() // a follower passes it on
	if before := f.hashes()[0]; e.StateHash != before || e.Member != "m1" || e.Rows["tenants"] != 1 || e.Cluster != f.cluster.ID {
		t.Errorf("%+v, want the hash %s", e, before)
	}
	f.op().call("POST", "/v1/tenants", client.TenantCreate{ID: "late"}).want(201)
	status, body := f.at(2, f.operator).restore(bytes.NewReader(file), digestOf(file), f.statement(2)) // so does another
	var rec fleet.IncarnationRecord
	if err := json.Unmarshal(body, &rec); status != 201 || err != nil || rec.Number != 2 || rec.Snapshot == nil || rec.Snapshot.StateHash != e.StateHash {
		t.Fatalf("%d %s", status, body)
	}
	f.op().call("GET", "/v1/tenants/late", nil).want(404)
	f.op().call("GET", "/v1/tenants/acme", nil).want(200)
	if h := f.hashes(); h[0] != h[1] || h[0] != h[2] {
		t.Errorf("the members differ: %v", h)
	}
	var list client.Page[fleet.IncarnationRecord]
	must(t, json.Unmarshal(f.op().call("GET", "/v1/cluster/incarnations", nil).want(200).body, &list))
	if diff := cmp.Diff([]fleet.IncarnationRecord{rec}, list.Items); diff != "" {
		t.Error(diff)
	}
	// Twice is once: the statement was used.
	if status, body := f.op().restore(bytes.NewReader(file), digestOf(file), f.statement(2)); status != 409 {
		t.Errorf("%d %s", status, body)
	}
}

func entryPut(i int, value []byte) command.EntryPut {
	return command.EntryPut{Key: fmt.Sprintf("acme/%d", i), Value: bytes.Clone(value)}
}

func TestALargeSnapshotGoesThroughTheLogInParts(t *testing.T) {
	f := open(t, 2)
	noise := make([]byte, 1<<18)
	for i := range noise { // which does not compress
		noise[i] = byte(i * i * 2654435761 >> 16)
	}
	for i := range 16 {
		sum := sha256.Sum256([]byte{byte(i)})
		for j := range noise {
			noise[j] ^= sum[j%32]
			if j%32 == 31 {
				sum = sha256.Sum256(sum[:])
			}
		}
		f.propose(entryPut(i, noise))
	}
	file, _ := f.op().save()
	if len(file) < 3<<20 {
		t.Fatalf("%d bytes are no test of parts", len(file))
	}
	if status, body := f.op().restore(bytes.NewReader(file), digestOf(file), f.statement(2)); status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	if h := f.hashes(); h[0] != h[1] {
		t.Error("the members differ")
	}
}

func TestARestoreIsRefusedWholeAndSaysWhy(t *testing.T) {
	f := open(t, 1)
	f.op().call("POST", "/v1/tenants", client.TenantCreate{ID: "acme"}).want(201)
	file, _ := f.op().save()
	foreign := foreignFile(t, "c-other")
	sameNameOtherKEK := foreignFile(t, f.cluster.ID)
	damaged := bytes.Clone(file)
	damaged[len(damaged)-30] ^= 1
	other := open(t, 1)
	before := f.hashes()[0]
	for name, tt := range map[string]struct {
		file              []byte
		digest, statement string
		status            int
		says              string
	}{
		"without a digest":               {file, "", f.statement(2), 422, "Content-Digest"},
		"with another digest":            {file, digestOf(file[1:]), f.statement(2), 422, "nothing was changed"},
		"without a statement":            {file, digestOf(file), "", 422, "--recovery-key"},
		"with a statement by another":    {file, digestOf(file), other.statement(2), 403, "not signed by the recovery key"},
		"with the running incarnation":   {file, digestOf(file), f.statement(2)[:len(f.statement(2))-8], 422, ""},
		"a damaged snapshot":             {damaged, digestOf(damaged), f.statement(2), 422, "damaged"},
		"half a snapshot":                {file[:len(file)/2], digestOf(file[:len(file)/2]), f.statement(2), 422, "cut off"},
		"no snapshot":                    {[]byte("hello\n"), digestOf([]byte("hello\n")), f.statement(2), 422, "no snapshot"},
		"another cluster's":              {foreign, digestOf(foreign), f.statement(2), 403, "key-encryption key"},
		"this cluster's by another KEK":  {sameNameOtherKEK, digestOf(sameNameOtherKEK), f.statement(2), 403, "from escrow"},
		"nothing, with the right digest": {nil, digestOf(nil), f.statement(2), 422, "no snapshot"},
	} {
		status, body := f.op().restore(bytes.NewReader(tt.file), tt.digest, tt.statement)
		if status != tt.status || !strings.Contains(string(body), tt.says) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	for _, who := range []as{f.at(0, ""), f.at(0, "eft1.x.y")} {
		if status, _ := who.restore(bytes.NewReader(file), digestOf(file), f.statement(2)); status != 401 {
			t.Errorf("without a token: %d", status)
		}
		who.call("GET", "/v1/cluster/snapshot", nil).want(401)
	}
	if f.hashes()[0] != before {
		v := f.members[0].state.Read()
		if len(v.Incarnations()) != 0 || v.StagedParts("x") != 0 {
			t.Error("something was applied")
		}
		t.Error("the state changed although everything was refused")
	}
}

// foreignFile is a snapshot that another KEK sealed.
func foreignFile(t *testing.T, cluster fleet.ClusterID) []byte {
	t.Helper()
	f := open(t, 1)
	kek, err := keyring.NewKEK()
	must(t, err)
	rec, err := keys.Generate(cluster, "edge.example", kek, make([]byte, 32), time.Now())
	must(t, err)
	k, err := keys.Open(rec, kek)
	must(t, err)
	tx := f.members[0].state.Write()
	defer tx.Abort()
	tx.PutCluster(rec)
	tx.Commit()
	var b bytes.Buffer
	_, err = backup.Write(&b, backup.Source{View: f.members[0].state.Read(), Member: "m1", Keys: k, Now: time.Now()})
	must(t, err)
	return b.Bytes()
}

func TestAnIncarnationIsOrderedAndDrillsAreRecorded(t *testing.T) {
	f := open(t, 1)
	signed := f.signed(9)
	f.op().call("POST", "/v1/cluster/incarnations", client.IncarnationStart{Statement: signed}).want(201)
	f.op().call("POST", "/v1/cluster/incarnations", client.IncarnationStart{Statement: signed}).want(409)
	f.op().call("POST", "/v1/cluster/incarnations", client.IncarnationStart{Statement: fleet.SignedIncarnation{Statement: []byte("x"), Signature: []byte("y")}}).want(403)
	if c, _ := f.members[0].state.Read().Cluster(); c.Incarnation != 9 {
		t.Errorf("incarnation %d", c.Incarnation)
	}
	var d fleet.Drill
	must(t, json.Unmarshal(f.op().call("POST", "/v1/drills", client.DrillCreate{Kind: fleet.DrillRestore}).want(201).body, &d))
	f.op().call("POST", "/v1/drills", client.DrillCreate{Kind: "fire"}).want(422)
	held := f.op().with("If-Match", fmt.Sprintf("%q", fmt.Sprint(d.Revision)))
	d.Marker = 1
	must(t, json.Unmarshal(held.call("PATCH", "/v1/drills/"+d.ID, client.DrillUpdate{Drill: d}).want(200).body, &d))
	held.call("PATCH", "/v1/drills/"+d.ID, client.DrillUpdate{Drill: d}).want(412)
	f.op().call("GET", "/v1/drills/"+d.ID, nil).want(200)
	f.op().call("GET", "/v1/drills/none", nil).want(404)
	var list client.Page[fleet.Drill]
	must(t, json.Unmarshal(f.op().call("GET", "/v1/drills", nil).want(200).body, &list))
	if len(list.Items) != 1 || list.Items[0].Marker != 1 {
		t.Errorf("%+v", list)
	}
}
