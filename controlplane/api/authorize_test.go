package api_test

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/sample"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

func TestWhatNobodyAllowedIsDenied(t *testing.T) {
	f := open(t, 1)
	f.tenant("red", fleet.SecurityEdge)
	f.tenant("blue", fleet.OnPremise)
	operator := fleet.Token{ID: "t1", Role: fleet.RoleOperator}
	red := fleet.Token{ID: "t2", Role: fleet.RoleTenant, Tenant: "red"}
	auditor := fleet.Token{ID: "t3", Role: "auditor", Tenant: "red"}
	none := fleet.Token{ID: "t4"}
	for name, test := range map[string]struct {
		scope  int
		duty   fleet.DutyID
		token  fleet.Token
		tenant fleet.TenantID
		want   error
	}{
		"an operation without a scope":            {api.Nobody, fleet.DutyConsole, operator, "", fleet.ErrDenied},
		"a scope that is not known":               {api.Unknown, fleet.DutyConsole, operator, "", fleet.ErrDenied},
		"an operation without a duty":             {api.Operators, "", operator, "", fleet.ErrDenied},
		"a duty that is not known":                {api.TenantOwn, "D99", red, "red", fleet.ErrDenied},
		"no token":                                {api.AnyToken, fleet.DutyConsole, fleet.Token{}, "", fleet.ErrUnauthenticated},
		"a role that is not known":                {api.AnyToken, fleet.DutyConsole, auditor, "", fleet.ErrDenied},
		"a role that is not known, of the tenant": {api.TenantOwn, fleet.DutyConsole, auditor, "red", fleet.ErrDenied},
		"no role":                                   {api.TenantOwn, fleet.DutyConsole, none, "red", fleet.ErrDenied},
		"a tenant as an operator":                   {api.Operators, fleet.DutyConsole, red, "red", fleet.ErrDenied},
		"a tenant on another":                       {api.TenantOwn, fleet.DutyConsole, red, "blue", fleet.ErrNotFound},
		"a tenant on none":                          {api.TenantOwn, fleet.DutyConsole, red, "", fleet.ErrNotFound},
		"an operator on no tenant":                  {api.TenantOwn, fleet.DutyConsole, operator, "", fleet.ErrNotFound},
		"a token where a node is wanted":            {api.NodesOnly, fleet.DutyConsole, operator, "", fleet.ErrDenied},
		"a token where a member is wanted":          {api.MembersOnly, fleet.DutyConsole, operator, "", fleet.ErrDenied},
		"a tenant on itself":                        {api.TenantOwn, fleet.DutyConsole, red, "red", nil},
		"an operator on a tenant":                   {api.TenantOwn, fleet.DutyConsole, operator, "red", nil},
		"the client's duty, by the vendor":          {api.TenantOwn, fleet.DutyMasking, operator, "red", fleet.ErrDenied},
		"the client's duty, by the client":          {api.TenantOwn, fleet.DutyMasking, red, "red", nil},
		"the vendor's duty in this form, by it":     {api.TenantOwn, fleet.DutyNodeUpdate, operator, "red", nil},
		"the client's duty in that form, by vendor": {api.TenantOwn, fleet.DutyNodeUpdate, operator, "blue", fleet.ErrDenied},
		"the vendor's duty, by the client":          {api.TenantOwn, fleet.DutyNodeUpdate, red, "red", fleet.ErrDenied},
	} {
		if err := f.members[0].api.AuthorizeToken(test.scope, test.duty, test.token, test.tenant); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

// The same call is allowed to the vendor where it runs the nodes' control plane, and refused where the client does.
func TestTheFormOfANodeGroupDecidesWhoOperatesItsNodes(t *testing.T) {
	f := open(t, 1)
	for i, test := range []struct {
		form  fleet.Form
		wants int
	}{{fleet.SecurityEdge, 200}, {fleet.Hybrid, 200}, {fleet.OnPremise, 403}} {
		group := fleet.GroupName(fmt.Sprintf("g%d", i))
		id := fleet.NodeID(fmt.Sprintf("n%d", i))
		f.propose(command.GroupPut{Put: command.Put{Create: true}, Name: group, Spec: fleet.GroupSpec{Form: test.form}})
		f.node(id, byte(i+1))
		n, _ := f.members[0].state.Read().Node(id)
		n.Spec.Group = group
		f.propose(command.NodePut{ID: id, Spec: n.Spec})
		for _, got := range []answer{
			f.op().call("PATCH", "/v1/nodes/"+string(id), map[string]any{"cordoned": true}),
			f.op().call("DELETE", "/v1/nodes/"+string(id), nil),
		} {
			if got.status != test.wants || test.wants == 403 && !strings.Contains(got.Detail, "belongs to the client") {
				t.Errorf("%s: got %d %s, want %d", test.form, got.status, got.body, test.wants)
			}
		}
		made := f.op().call("POST", "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinNode, Group: group})
		if (made.status == 201) != (test.wants == 200) {
			t.Errorf("%s: join token: %d %s", test.form, made.status, made.body)
		}
	}
}

func csr(t *testing.T) string {
	t.Helper()
	key, err := mtls.NewKey()
	must(t, err)
	b, err := mtls.CSR(key)
	must(t, err)
	return string(b)
}

// Every operation that says that it changes something leaves exactly one entry of that name; the others leave none.
func TestEveryMutationLeavesOneAuditEntry(t *testing.T) {
	f := open(t, 1)
	_, d := spec(t)
	declared := map[string]described{}
	for _, methods := range d.Paths {
		for _, op := range methods {
			declared[op.ID] = op
		}
	}
	op := f.op()
	var tenantToken, operatorToken, left client.TokenCreated
	var nodeJoin, memberJoin client.JoinTokenCreated
	rule := client.RuleCreate{ID: "r1", Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "x+", AttackType: fleet.AttackCustom}}
	m9 := fleet.Member{ID: "m9", API: "192.0.2.9:1", Raft: "192.0.2.9:2", NATS: "192.0.2.9:3", NATSRoute: "192.0.2.9:4", DNS: "192.0.2.9:5", Format: command.Format}
	moved := m9
	moved.DNS = "192.0.2.9:53"
	red := func() as { return f.at(0, tenantToken.Secret) }
	done := map[string]bool{"approval-approve": true, "approval-deny": true} // see the tests of four eyes
	var drill fleet.Drill
	snap, _ := op.save()
	nodeKey, err := mtls.NewKey()
	must(t, err)
	nodeCSR, err := mtls.CSR(nodeKey)
	must(t, err)
	for _, step := range []struct {
		id           string
		caller       func() as
		method, path string
		body         any
		into         any
	}{
		{"group-put", func() as { return op.with("If-None-Match", "*") }, "PUT", "/v1/groups/eu", fleet.GroupSpec{Form: fleet.Hybrid}, nil},
		{"tenant-create", nil, "POST", "/v1/tenants", client.TenantCreate{ID: "red"}, nil},
		{"tenant-update", nil, "PATCH", "/v1/tenants/red", map[string]any{"name": "Red"}, nil},
		{"token-create", nil, "POST", "/v1/tenants/red/tokens", client.TokenCreate{}, &tenantToken},
		{"operator-token-create", nil, "POST", "/v1/tokens", client.TokenCreate{}, &operatorToken},
		{"operator-token-delete", nil, "DELETE", "/v1/tokens/OPERATOR", nil, nil},
		{"operator-user-create", nil, "POST", "/v1/users", client.UserCreate{ID: "alice", Roles: []fleet.RoleName{"administrator"}}, nil},
		{"operator-user-update", nil, "PATCH", "/v1/users/alice", map[string]any{"name": "Alice"}, nil},
		{"operator-user-disable", nil, "POST", "/v1/users/alice/disable", nil, nil},
		{"operator-user-enable", nil, "POST", "/v1/users/alice/enable", nil, nil},
		{"operator-user-delete", nil, "DELETE", "/v1/users/alice", nil, nil},
		{"operator-role-create", nil, "POST", "/v1/roles", client.RoleCreate{Name: "r", Permissions: []fleet.Permission{"hosts:read"}}, nil},
		{"operator-role-delete", nil, "DELETE", "/v1/roles/r", nil, nil},
		{"access-update", nil, "PATCH", "/v1/access", map[string]any{"max_token_days": 30}, nil},
		{"user-create", nil, "POST", "/v1/tenants/red/users", client.UserCreate{ID: "carol", Roles: []fleet.RoleName{"analyst"}}, nil},
		{"user-update", nil, "PATCH", "/v1/tenants/red/users/carol", map[string]any{"name": "Carol"}, nil},
		{"user-disable", red, "POST", "/v1/tenants/red/users/carol/disable", nil, nil},
		{"user-enable", red, "POST", "/v1/tenants/red/users/carol/enable", nil, nil},
		{"user-delete", red, "DELETE", "/v1/tenants/red/users/carol", nil, nil},
		{"role-create", red, "POST", "/v1/tenants/red/roles", client.RoleCreate{Name: "r", Permissions: []fleet.Permission{"hosts:read"}}, nil},
		{"role-delete", red, "DELETE", "/v1/tenants/red/roles/r", nil, nil},
		{"token-rotate", red, "POST", "/v1/whoami/rotate", client.TokenRotate{}, &tenantToken},
		{"cluster-settle", func() as { return f.at(0, "", f.memberCert("m1")) }, "POST", "/v1/cluster/settle", client.Settle{Index: 1}, nil},
		{"cluster-token-uses", func() as { return f.at(0, "", f.memberCert("m1")) }, "POST", "/v1/cluster/token-uses", client.TokenUses{Uses: []client.TokenUse{}}, nil},
		{"host-create", nil, "POST", "/v1/tenants/red/hosts", client.HostCreate{Name: "a.example.com", Origins: []fleet.Origin{{URL: "https://203.0.113.9"}}}, nil},
		{"host-update", nil, "PATCH", "/v1/tenants/red/hosts/a.example.com", map[string]any{"mode": "block"}, nil},
		{"host-check", nil, "POST", "/v1/tenants/red/hosts/a.example.com/check", nil, nil},
		{"origin-certificate-set", nil, "POST", "/v1/tenants/red/hosts/a.example.com/origins/certificate", func() any {
			cert, key := clientCert(t, nil)
			return client.OriginCertSet{Origin: "https://203.0.113.9", Certificate: cert, Key: key}
		}, nil},
		{"origin-certificate-delete", nil, "POST", "/v1/tenants/red/hosts/a.example.com/origins/certificate/delete", client.OriginCertDelete{Origin: "https://203.0.113.9"}, nil},
		{"cert-upload", nil, "POST", "/v1/tenants/red/hosts/a.example.com/certificate", func() any {
			chain, _, key := ownCertificate(t, "a.example.com", 60*24*time.Hour)
			return client.CertificateUpload{Certificate: chain, Key: key}
		}, nil},
		{"cert-remove", nil, "POST", "/v1/tenants/red/hosts/a.example.com/certificate/remove", nil, nil},
		{"cert-renew", f.ordered("red", "a.example.com", op), "POST", "/v1/tenants/red/hosts/a.example.com/certificate/renew", nil, nil},
		{"cert-revoke", nil, "POST", "/v1/tenants/red/hosts/a.example.com/certificate/revoke", client.CertificateRevoke{}, nil},
		{"rule-create", nil, "POST", "/v1/tenants/red/rules", rule, nil},
		{"rule-test", nil, "POST", "/v1/tenants/red/rules/test", client.RuleTest{URL: "https://a.example.com/?q=xx"}, nil},
		{"rule-update", func() as { return op.with("If-Match", "*") }, "PUT", "/v1/tenants/red/rules/r1", client.RuleUpdate{Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "yy", AttackType: fleet.AttackCustom}}, nil},
		{"rule-explain", nil, "POST", "/v1/tenants/red/rules/explain", client.RuleExplain{Request: sample.Request{Host: "a.example.com"}}, nil},
		{"rule-impact", nil, "POST", "/v1/tenants/red/rules/impact", client.RuleImpact{Spec: fleet.RuleSpec{Kind: fleet.RuleDisableRule, Rules: []string{"942100"}}}, nil},
		{"rule-import", nil, "POST", "/v1/tenants/red/rules/import", client.RuleImport{Rules: []client.RuleEntry{{ID: "r2", RuleSpec: fleet.RuleSpec{Kind: fleet.RuleMode, Mode: fleet.ModeBlock}}}}, nil},
		{"rule-delete", nil, "DELETE", "/v1/tenants/red/rules/r1", nil, nil},
		{"join-token-create", nil, "POST", "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinNode}, &nodeJoin},
		{"edge-enrol", func() as { return f.at(0, "") }, "POST", "/v1/edge/enrol", func() any {
			r := enrolmentOf(t, nodeJoin.Secret, string(nodeCSR))
			r.Node = "n1"
			return r
		}, nil},
		{"edge-renew", func() as { return f.at(0, "") }, "POST", "/v1/edge/renew", func() any {
			der, err := f.keys.NodeCA.SignNode("c-test", "n1", nodeKey.Public(), time.Now())
			must(t, err)
			block, _ := pem.Decode(der)
			r, _ := renewal(t, tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: nodeKey}, "n1")
			return r
		}, nil},
		{"node-unlock", func() as {
			f.propose(command.NodeLock{ID: "n1", Reason: "two machines"})
			return op
		}, "POST", "/v1/nodes/n1/unlock", nil, nil},
		{"edge-poll", func() as { return f.at(0, "", f.nodeCert("n1")) }, "POST", "/v1/edge/poll", report("n1"), nil},
		{"node-update", nil, "PATCH", "/v1/nodes/n1", map[string]any{"cordoned": true}, nil},
		{"region-withdraw", nil, "POST", "/v1/regions/default/withdraw", client.RegionWithdraw{Force: true}, nil},
		{"region-restore", nil, "POST", "/v1/regions/default/restore", nil, nil},
		{"node-revoke", nil, "DELETE", "/v1/nodes/n1", nil, nil},
		{"join-token-create", nil, "POST", "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinMember}, &memberJoin},
		{"cluster-join", func() as { return f.at(0, "") }, "POST", "/v1/cluster/join", func() any {
			return client.MemberJoin{Token: memberJoin.Secret, Member: m9, CSR: csr(t), APICSR: csr(t), Sent: enrolment(t, "").Sent}
		}, nil},
		{"cluster-announce", func() as { return f.at(0, "", f.memberCert("m9")) }, "POST", "/v1/cluster/announce", moved, nil},
		{"cluster-member-remove", nil, "DELETE", "/v1/cluster/members/m9", nil, nil},
		{"cluster-transfer-leader", nil, "POST", "/v1/cluster/transfer-leader", client.LeaderTransfer{Reason: "work on the host"}, nil},
		{"group-rekey", nil, "POST", "/v1/groups/default/rekey", client.GroupRekey{}, nil},
		{"kek-rotate", nil, "POST", "/v1/cluster/kek/rotate", nil, nil},
		{"host-delete", nil, "DELETE", "/v1/tenants/red/hosts/a.example.com", nil, nil},
		{"token-delete", nil, "DELETE", "/v1/tenants/red/tokens/TENANT", nil, nil},
		{"token-create", nil, "POST", "/v1/tenants/red/tokens", client.TokenCreate{}, &left},
		{"tenant-delete", func() as {
			f.letGo()
			return op
		}, "DELETE", "/v1/tenants/red", nil, nil},
		{"drill-begin", nil, "POST", "/v1/drills", client.DrillCreate{Kind: fleet.DrillLeaderLoss, Target: "m1", LoseMajority: true}, &drill},
		{"member-crash", nil, "POST", "/v1/cluster/members/m1/crash", func() any { return client.MemberCrash{Drill: drill.ID} }, nil},
		{"drill-update", nil, "PATCH", "/v1/drills/DRILL", func() any { return client.DrillUpdate{Drill: drill} }, nil},
		{"incarnation-start", nil, "POST", "/v1/cluster/incarnations", client.IncarnationStart{Statement: f.signed(2)}, nil},
		{"snapshot-restore", func() as {
			return op.with("Content-Digest", digestOf(snap)).with("Edgefleet-Statement", f.statement(3))
		}, "POST", "/v1/cluster/restores", string(snap), nil},
	} {
		caller, body := op, step.body
		if step.caller != nil {
			caller = step.caller()
		}
		if late, ok := body.(func() any); ok {
			body = late()
		}
		path := strings.NewReplacer("OPERATOR", string(operatorToken.ID), "TENANT", string(tenantToken.ID), "DRILL", drill.ID).Replace(step.path)
		before := len(f.audit())
		caller = caller.with("Idempotency-Key", fmt.Sprintf("key-%d", len(f.audit())))
		caller = caller.with("Edgefleet-Reason", "ticket 7")
		got := caller.call(step.method, path, body)
		if got.status >= 300 {
			t.Fatalf("%s: %d %s", step.id, got.status, got.body)
		}
		if step.into != nil {
			got.into(step.into)
		}
		var names []string
		for _, e := range f.audit()[before:] {
			names = append(names, e.Operation)
			if e.Name == "" || e.Source == "" || e.RequestID != got.header.Get("X-Request-Id") || e.Reason != "ticket 7" && step.id != "cluster-transfer-leader" {
				t.Errorf("%s: the entry does not say who asked: %+v", step.id, e)
			}
			if raw := string(e.Before) + string(e.After); strings.Contains(strings.ReplaceAll(raw, "state_hash", ""), "hash") || strings.Contains(raw, "secret") {
				t.Errorf("%s: the entry holds secrets: %s", step.id, raw)
			}
		}
		var want []string
		if a := declared[step.id].Audit; a != "" {
			want = []string{a}
		}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("%s: %s", step.id, diff)
		}
		if o := declared[step.id]; o.Audit != "" && o.takes("Idempotency-Key") {
			checkReplay(t, step.id, f, func() answer { return caller.call(step.method, path, body) }, got)
		}
		done[step.id] = true
	}
	for id, o := range declared {
		if (o.Audit != "" || slices.Contains(changesNothing, id)) != done[id] {
			t.Errorf("%s is not tried", id)
		}
	}
	if err := fleet.VerifyAudit(f.audit()); err != nil {
		t.Error(err)
	}
	f.at(0, left.Secret).call("GET", "/v1/whoami", nil).want(401) // the tenant is gone, and its tokens
}

func TestTheAuditLogIsPaged(t *testing.T) {
	f := open(t, 1)
	red := f.tenant("red", "")
	f.tenant("blue", "")
	for range 5 {
		f.at(0, red).call("POST", "/v1/tenants/red/tokens", client.TokenCreate{}).want(201)
		f.op().call("POST", "/v1/tenants/blue/tokens", client.TokenCreate{}).want(201)
	}
	for who, token := range map[string]string{"red": red, "": f.operator} {
		var got, want []uint64
		for _, e := range f.audit() {
			if who == "" || e.Tenant == "red" {
				want = append(want, e.Seq)
			}
		}
		path := "/v1/audit?limit=2"
		for range 20 {
			var p client.Page[fleet.AuditEntry]
			f.at(0, token).call("GET", path, nil).want(200).into(&p)
			for _, e := range p.Items {
				got = append(got, e.Seq)
			}
			if p.Next == "" {
				break
			}
			path = "/v1/audit?limit=2&cursor=" + p.Next
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", who, diff)
		}
	}
	for _, query := range []string{"limit=101", "cursor=-1", "cursor=x", "after=1", "cursor=99999999999999999999"} {
		f.at(0, red).call("GET", "/v1/audit?"+query, nil).want(422)
	}
	f.at(0, red).call("GET", "/v1/audit?tenant=blue", nil).want(404)
	f.at(0, red).call("GET", "/v1/audit/export?tenant=blue", nil).want(404)
}

func TestATenantMayNotOpenItsOwnOrigins(t *testing.T) {
	f := open(t, 1)
	red := f.at(0, f.tenant("red", ""))
	private := `{"name":"a.example.com","origins":[{"url":"https://10.1.2.3"}]}`
	for _, got := range []answer{
		red.call("PATCH", "/v1/tenants/red", `{"allowed_origins":["0.0.0.0/0"]}`),
		red.call("POST", "/v1/tenants", `{"id":"mine","allowed_origins":["10.0.0.0/8"]}`),
		red.call("DELETE", "/v1/tenants/red", nil),
	} {
		got.want(403)
	}
	red.call("POST", "/v1/tenants/red/hosts", private).want(422)
	red.call("POST", "/v1/tenants/red/hosts", strings.Replace(private, "{", `{"allowed_origins":["0.0.0.0/0"],`, 1)).want(422)
	f.op().call("PATCH", "/v1/tenants/red", `{"allowed_origins":["10.0.0.0/33"]}`).want(422)
	f.op().call("PATCH", "/v1/tenants/red", `{"allowed_origins":["10.0.0.0/8"]}`).want(200)
	red.call("POST", "/v1/tenants/red/hosts", private).want(201)
	red.call("POST", "/v1/tenants/red/hosts", `{"name":"b.example.com","origins":[{"url":"http://169.254.169.254"}]}`).want(422)
}

func TestADeletedHostIsNotTakenFromItsVisitors(t *testing.T) {
	f := open(t, 1)
	red := f.at(0, f.tenant("red", ""))
	create := client.HostCreate{Name: "a.example.com", Origins: []fleet.Origin{{URL: "https://203.0.113.9"}}}
	var first, second client.HostView
	red.call("POST", "/v1/tenants/red/hosts", create).want(201).into(&first)
	path := "/v1/tenants/red/hosts/a.example.com"

	f.pointing.Store(true)
	red.call("DELETE", path, nil).want(409)
	red.call("DELETE", path+"?force=true", nil).want(403)
	f.op().call("DELETE", path, nil).want(409)
	f.pointing.Store(false)
	f.pointingErr.Store(true)
	if a := red.call("DELETE", path, nil).want(409); !strings.Contains(a.Detail, "cannot be looked up") {
		t.Errorf("got %s", a.Detail)
	}
	f.op().call("DELETE", path+"?force=true", nil).want(422)
	f.op().with("Edgefleet-Reason", "the customer left").call("DELETE", path+"?force=true", nil).want(200)
	red.call("GET", path, nil).want(200).into(&second)
	if second.Observed.Phase != fleet.PhaseDeleting {
		t.Errorf("a host that edges may have is in the phase %s", second.Observed.Phase)
	}
	red.call("DELETE", path, nil).want(200)
	red.call("PATCH", path, map[string]any{"mode": "off"}).want(409)
	red.call("POST", path+"/check", nil).want(409)
	red.call("POST", "/v1/tenants/red/hosts", create).want(409)
	f.letGo()
	red.call("GET", path, nil).want(404)

	red.call("POST", "/v1/tenants/red/hosts", create).want(201).into(&second)
	if first.Desired.Label == second.Desired.Label || len(second.Desired.Label) < 26 {
		t.Errorf("labels %q and %q", first.Desired.Label, second.Desired.Label)
	}
	if l, ok := f.members[0].state.Read().Label(first.Desired.Label); !ok || l.Host != "a.example.com" {
		t.Errorf("the old label is free: %+v", l)
	}
	f.pointingErr.Store(false)
	red.call("DELETE", "/v1/tenants/red/hosts/A.Example.Com.", nil).want(200)
	f.letGo()
	red.call("DELETE", path, nil).want(404)
}
