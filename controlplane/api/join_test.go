package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// TestAMemberThatComesBackHasNoVoteOfBefore joins one that was removed by a leader that went before it took the vote.
func TestAMemberThatComesBackHasNoVoteOfBefore(t *testing.T) {
	f := open(t, 1)
	f.log.left = map[fleet.MemberID]bool{"m1": true, "m9": true}
	voted := map[fleet.MemberID]bool{}
	join := func(id fleet.MemberID) answer {
		var tok client.JoinTokenCreated
		f.op().call("POST", "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinMember}).want(201).into(&tok)
		f.log.refuse = func(fleet.MemberID) error { // with the log's lock held, before what joins is in the state
			voted[id] = f.log.left[id]
			return nil
		}
		m := fleet.Member{ID: id, Format: command.Format, API: "192.0.2.9:1", Raft: "192.0.2.9:2", NATS: "192.0.2.9:3", NATSRoute: "192.0.2.9:4", DNS: "192.0.2.9:5"}
		return f.at(0, "").call("POST", "/v1/cluster/join", client.MemberJoin{Token: tok.Secret, Member: m, CSR: csr(t), APICSR: csr(t), Sent: time.Now().UTC()})
	}
	join("m9").want(201)
	if voted["m9"] {
		t.Error("it was in the state while it had a vote of before")
	}
	// A member that is there keeps its vote, whoever wants its id.
	if got := join("m1").want(409); !strings.Contains(got.Detail, "m1 is taken") {
		t.Errorf("got %s", got.body)
	}
	if !f.log.left["m1"] {
		t.Error("the member that was there lost its vote")
	}
}
