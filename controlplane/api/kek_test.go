package api_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// says makes the members say which key-encryption keys they have.
func (f *fixture) says(has func(fleet.MemberID) ([]string, error)) { f.has.Store(&has) }

func TestTheNewestKeyEncryptionKeySealsWhenEveryMemberHasIt(t *testing.T) {
	f := open(t, 3)
	old, newest := f.kek.Names()[0], f.kek.Names()[1]
	f.says(func(id fleet.MemberID) ([]string, error) {
		switch id {
		case "m2":
			return []string{old}, nil
		case "m3":
			return nil, errors.New("m3 does not answer")
		}
		return f.kek.Names(), nil
	})
	before := f.entries()
	if p := f.op().call("POST", "/v1/cluster/kek/rotate", nil).want(409); !strings.Contains(p.Detail, newest+" is not on every member: m2 would open nothing") {
		t.Error(p.Detail)
	}
	f.says(func(id fleet.MemberID) ([]string, error) {
		if id == "m3" {
			return nil, errors.New("m3 does not answer")
		}
		return f.kek.Names(), nil
	})
	if p := f.op().call("POST", "/v1/cluster/kek/rotate", nil).want(409); !strings.Contains(p.Detail, "m3") || !strings.Contains(p.Detail, "do not answer") {
		t.Error(p.Detail)
	}
	if f.entries() != before {
		t.Error("a refused rotation left something in the log")
	}
	var s client.KEKStatus
	f.op().call("GET", "/v1/cluster/kek", nil).want(200).into(&s)
	want := client.KEKStatus{Seals: old, Needed: []string{}, Members: []client.KEKMember{
		{Member: "m1", Keys: []string{old, newest}}, {Member: "m2", Keys: []string{old, newest}}, {Member: "m3", Silent: true, Detail: "m3 does not answer"},
	}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}

	// A member that has no key at all opened nothing before either.
	f.says(func(id fleet.MemberID) ([]string, error) {
		if id == "m3" {
			return nil, nil
		}
		return f.kek.Names(), nil
	})
	f.at(1, f.operator).with("Edgefleet-Reason", "yearly").call("POST", "/v1/cluster/kek/rotate", nil).want(200).into(&s)
	if s.Seals != newest || s.Waiting != 0 || !strings.Contains(s.Members[2].Detail, "has no key-encryption key") {
		t.Errorf("%+v", s)
	}
	c, _ := f.members[1].state.Read().Cluster()
	for name, sealed := range c.Secrets {
		if sealed.Key != newest {
			t.Errorf("%s is sealed by %s", name, sealed.Key)
		}
	}
	opened, err := keys.Open(c, f.kek)
	must(t, err)
	if diff := cmp.Diff(f.keys.NodeCA.CertPEM(), opened.NodeCA.CertPEM()); diff != "" {
		t.Error(diff)
	}
	last := f.audit()[len(f.audit())-1]
	if last.Operation != "kek_rotate" || !strings.Contains(string(last.After), newest) || strings.Contains(string(last.After), "ciphertext") {
		t.Errorf("%+v", last)
	}
	if p := f.op().call("POST", "/v1/cluster/kek/rotate", nil).want(409); !strings.Contains(p.Detail, "controlplane kek add") {
		t.Error(p.Detail)
	}
}

// order puts an order whose key the key-encryption key seals that seals now.
func (f *fixture) order() {
	f.t.Helper()
	f.tenant("acme", fleet.SecurityEdge)
	f.propose(command.HostPut{Put: command.Put{Create: true}, Name: "www.acme.example", Tenant: "acme", Label: "l1", Spec: fleet.HostSpec{Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.1"}}}})
	sealed, err := f.kek.Seal([]byte("key"), keyring.CertKeyAAD("acme", "www.acme.example", "spki", 1))
	must(f.t, err)
	f.propose(command.OrderPut{Put: command.Put{Create: true}, Order: fleet.OrderRecord{
		Order: fleet.Order{ID: "o1", Host: "www.acme.example", Tenant: "acme", Generation: 1, State: fleet.OrderQueued}, Key: sealed, SPKI: "spki",
	}})
}

func TestTheStatusOfARotationSaysWhatWaitsAndWhatIsNeededForIt(t *testing.T) {
	f := open(t, 2)
	old, newest := f.kek.Names()[0], f.kek.Names()[1]
	f.order()
	f.op().call("POST", "/v1/cluster/kek/rotate", nil).want(200)
	f.says(func(id fleet.MemberID) ([]string, error) {
		if id == "m2" {
			return []string{newest}, nil
		}
		return f.kek.Names(), nil
	})
	var s client.KEKStatus
	f.op().call("GET", "/v1/cluster/kek", nil).want(200).into(&s)
	if s.Seals != newest || s.Waiting != 1 || !slices.Equal(s.Needed, []string{old}) || s.Members[0].Detail != "" || !strings.Contains(s.Members[1].Detail, "lacks "+old) {
		t.Errorf("%+v", s)
	}
	if next, err := f.kek.Seal(nil, nil); err != nil || next.Key != newest {
		t.Errorf("sealed by %q, %v", next.Key, err)
	}
}

func TestARotationNeedsAnotherPersonAndTheKeysWhenItIsApproved(t *testing.T) {
	f, alice, bob := fourEyes(t)
	old, newest := f.kek.Names()[0], f.kek.Names()[1]
	first := f.held(f.at(1, alice).call("POST", "/v1/cluster/kek/rotate", nil))
	f.says(func(fleet.MemberID) ([]string, error) { return []string{old}, nil })
	var ap fleet.Approval
	f.at(0, bob).call("POST", "/v1/approvals/"+string(first.ID)+"/approve", nil).want(200).into(&ap)
	if ap.State != fleet.ApprovalFailed || !strings.Contains(ap.Detail, "is not on every member") {
		t.Errorf("%+v", ap)
	}
	f.says(func(fleet.MemberID) ([]string, error) { return f.kek.Names(), nil })
	second := f.held(f.at(1, alice).call("POST", "/v1/cluster/kek/rotate", nil))
	if c, _ := f.members[0].state.Read().Cluster(); c.KEK() != old {
		t.Errorf("rotated by one: %s seals", c.KEK())
	}
	f.at(0, bob).call("POST", "/v1/approvals/"+string(second.ID)+"/approve", nil).want(200).into(&ap)
	if c, _ := f.members[0].state.Read().Cluster(); c.KEK() != newest || ap.State != fleet.ApprovalExecuted {
		t.Errorf("%s seals, %+v", c.KEK(), ap)
	}
}

func TestASnapshotOfBeforeIsRestoredOnlyWhereEveryMemberOpensIt(t *testing.T) {
	f := open(t, 2)
	old, newest := f.kek.Names()[0], f.kek.Names()[1]
	f.order()
	snap := f.op().call("GET", "/v1/cluster/snapshot", nil).want(200).body
	f.op().call("POST", "/v1/cluster/kek/rotate", nil).want(200)
	f.says(func(id fleet.MemberID) ([]string, error) {
		if id == "m2" {
			return []string{newest}, nil
		}
		return f.kek.Names(), nil
	})
	restore := func(status int) answer {
		return f.op().with("Content-Digest", digestOf(snap)).with("Edgefleet-Statement", f.statement(2)).call("POST", "/v1/cluster/restores", string(snap)).want(status)
	}
	if p := restore(409); !strings.Contains(p.Detail, old) || !strings.Contains(p.Detail, "member m2 does not have: put it back into kek_file") {
		t.Error(p.Detail)
	}
	f.says(func(fleet.MemberID) ([]string, error) { return f.kek.Names(), nil })
	restore(201)
	var s client.KEKStatus
	f.op().call("GET", "/v1/cluster/kek", nil).want(200).into(&s)
	if s.Seals != newest || s.Waiting != 1 || !slices.Equal(s.Needed, []string{old}) {
		t.Errorf("%+v", s)
	}
}

func TestATenantAndAStrangerDoNotRotate(t *testing.T) {
	f := open(t, 1)
	tenant := f.tenant("acme", fleet.SecurityEdge)
	for token, status := range map[string]int{tenant: 403, "": 401} {
		f.at(0, token).call("GET", "/v1/cluster/kek", nil).want(status)
		f.at(0, token).call("POST", "/v1/cluster/kek/rotate", nil).want(status)
	}
}
