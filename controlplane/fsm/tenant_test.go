package fsm_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestTenantsTokensAndRules(t *testing.T) {
	noHosts := []command.Body{command.HostDelete{Name: "a.example.com", Tenant: "acme"}}
	run(t, []testCase{
		{name: "a tenant is made", when: tenant("gamma"), object: "tenant/gamma", of: "gamma"},
		{name: "a tenant is not made twice", when: tenant("acme"), refused: fleet.ErrConflict},
		{name: "a tenant that does not exist is not changed", when: with(tenant("gamma"), func(b *command.TenantPut) { b.Create = false }), refused: fleet.ErrNotFound},
		{name: "a tenant with a bad id is refused", when: tenant("A c m e"), refused: fleet.ErrInvalid},
		{name: "a tenant of no known group is refused", when: with(tenant("gamma"), func(b *command.TenantPut) { b.Spec.Group = "nowhere" }), refused: fleet.ErrNotFound, says: "nowhere"},
		{name: "a tenant of an unknown form is refused", when: with(tenant("gamma"), func(b *command.TenantPut) { b.Spec.Form = "x" }), refused: fleet.ErrInvalid},
		{name: "a tenant with a long name is refused", when: with(tenant("gamma"), func(b *command.TenantPut) { b.Spec.Name = strings.Repeat("x", 129) }), refused: fleet.ErrInvalid},
		{name: "a tenant with too many open ranges is refused", when: with(tenant("gamma"), func(b *command.TenantPut) { b.Spec.AllowedOrigins = make([]netip.Prefix, 65) }), refused: fleet.ErrInvalid},
		{name: "a tenant that changed meanwhile is not overwritten", when: with(tenant("acme"), func(b *command.TenantPut) { b.Put = command.Put{IfRevision: 999} }), refused: fleet.ErrConflict, says: "read it again"},
		{name: "a tenant with hosts is not deleted", when: command.TenantDelete{ID: "acme"}, refused: fleet.ErrConflict, says: "still has 1 hosts"},
		{name: "a tenant is deleted with its tokens and rules", given: noHosts, when: command.TenantDelete{ID: "acme"}, object: "tenant/acme", of: "acme", then: func(t *testing.T, v *state.View) {
			_, token := v.Token("ta")
			_, rule := v.Rule("ra")
			_, other := v.Token("tb")
			if token || rule || !other {
				t.Error(token, rule, other)
			}
		}},
		{name: "a tenant that changed meanwhile is not deleted", given: noHosts, when: command.TenantDelete{ID: "acme", IfRevision: 1}, refused: fleet.ErrConflict},
		{name: "an unknown tenant is not deleted", when: command.TenantDelete{ID: "gamma"}, refused: fleet.ErrNotFound},

		{name: "a token is made", when: operatorToken("op2"), object: "token/op2"},
		{name: "a tenant's token is made", when: tenantToken("t9", "acme"), object: "token/t9", of: "acme"},
		{name: "a token id is used once", when: tenantToken("tb", "acme"), refused: fleet.ErrConflict, unsaid: "beta"},
		{name: "a token of an unknown tenant is refused", when: tenantToken("t9", "gamma"), refused: fleet.ErrNotFound},
		{name: "an operator's token of a tenant is refused", when: with(operatorToken("op2"), func(b *command.TokenPut) { b.Token.Tenant = "acme" }), refused: fleet.ErrInvalid},
		{name: "a token of an unknown role is refused", when: with(operatorToken("op2"), func(b *command.TokenPut) { b.Token.Role = "root" }), refused: fleet.ErrInvalid, says: "operator or tenant"},
		{name: "a token without its hash is refused", when: with(operatorToken("op2"), func(b *command.TokenPut) { b.Token.Hash = nil }), refused: fleet.ErrInvalid},
		{name: "a token with a long comment is refused", when: with(operatorToken("op2"), func(b *command.TokenPut) { b.Token.Comment = strings.Repeat("x", 1025) }), refused: fleet.ErrTooLarge},
		{name: "a token is deleted", when: command.TokenDelete{ID: "ta"}, object: "token/ta", of: "acme"},
		{name: "a tenant deletes its own token", when: command.TokenDelete{ID: "ta", Tenant: "acme"}, object: "token/ta", of: "acme"},
		{name: "a tenant does not learn of another's token", when: command.TokenDelete{ID: "tb", Tenant: "acme"}, refused: fleet.ErrNotFound, says: "does not exist", unsaid: "beta"},
		{name: "a tenant does not delete the operator's token", when: command.TokenDelete{ID: "op1", Tenant: "acme"}, refused: fleet.ErrNotFound},
		{name: "the last operator token stays", when: command.TokenDelete{ID: "op1"}, refused: fleet.ErrConflict, says: "make another first"},
		{name: "an operator token that is not the last is deleted", given: []command.Body{operatorToken("op2")}, when: command.TokenDelete{ID: "op1"}, object: "token/op1"},
		{name: "an unknown token is not deleted", when: command.TokenDelete{ID: "t9"}, refused: fleet.ErrNotFound},

		{name: "a rule is made", when: rule("r9", "acme"), object: "rule/r9", of: "acme"},
		{name: "a rule is changed", when: with(rule("ra", "acme"), func(b *command.RulePut) { b.Create = false }), object: "rule/ra", of: "acme"},
		{name: "a rule of an unknown tenant is refused", when: rule("r9", "gamma"), refused: fleet.ErrNotFound},
		{name: "a rule id of another tenant is taken", when: rule("rb", "acme"), refused: fleet.ErrConflict, says: "rule id rb is taken", unsaid: "beta"},
		{name: "another tenant's rule does not exist for a change", when: with(rule("rb", "acme"), func(b *command.RulePut) { b.Create = false }), refused: fleet.ErrNotFound, unsaid: "beta"},
		{name: "another tenant's rule does not exist for a delete", when: command.RuleDelete{ID: "rb", Tenant: "acme"}, refused: fleet.ErrNotFound, unsaid: "beta"},
		{name: "a rule without a pattern is refused", when: with(rule("r9", "acme"), func(b *command.RulePut) { b.Spec.Pattern = "" }), refused: fleet.ErrInvalid},
		{name: "a rule with a long pattern is refused", when: with(rule("r9", "acme"), func(b *command.RulePut) { b.Spec.Pattern = strings.Repeat("x", fleet.MaxPatternLength+1) }), refused: fleet.ErrInvalid},
		{name: "a rule with too many conditions is refused", when: with(rule("r9", "acme"), func(b *command.RulePut) {
			b.Spec.Conditions = make([]fleet.RuleCondition, fleet.MaxConditionsPerRule+1)
		}), refused: fleet.ErrTooLarge},
		{name: "a rule that is large as a whole is refused", when: with(rule("r9", "acme"), func(b *command.RulePut) {
			b.Spec.Point = fleet.Point{{strings.Repeat("x", fleet.MaxRuleBytes)}}
		}), refused: fleet.ErrTooLarge},
		{name: "a rule of an unknown kind is refused", when: with(rule("r9", "acme"), func(b *command.RulePut) { b.Spec.Kind = "lua" }), refused: fleet.ErrInvalid},
		{name: "a rule of an unknown attack is refused", when: with(rule("r9", "acme"), func(b *command.RulePut) { b.Spec.AttackType = "x" }), refused: fleet.ErrInvalid},
		{name: "a rule is deleted", when: command.RuleDelete{ID: "ra", Tenant: "acme"}, object: "rule/ra", of: "acme"},
		{name: "a rule that changed meanwhile is not deleted", when: command.RuleDelete{ID: "ra", Tenant: "acme", IfRevision: 1}, refused: fleet.ErrConflict},
	})
}

func TestATenantHasALimitedNumberOfRulesAndHosts(t *testing.T) {
	w := city(t)
	tx := w.state.Write()
	for i := range fleet.MaxRulesPerTenant - 1 {
		tx.PutRule(fleet.Rule{ID: fleet.RuleID(fmt.Sprint("r-", i)), Tenant: "acme"})
	}
	for i := range fleet.MaxHostsPerTenant - 1 {
		tx.PutHost(fleet.Host{Name: fleet.HostName(fmt.Sprintf("h%d.example.org", i)), Tenant: "acme"})
	}
	tx.Commit()
	run := func(b command.Body, says string) {
		t.Helper()
		r := w.apply(t, b)
		if r.Err == nil || r.Err.Kind != "too_large" || !strings.Contains(r.Err.Message, says) {
			t.Errorf("%s: %v", b.Type(), r.Err)
		}
	}
	run(rule("one-more", "acme"), "the limit is 2000")
	run(host("one-more.example.org", "acme", "lz"), "the limit is 5000")
	w.must(t, rule("rb2", "beta"), host("b2.example.org", "beta", "lz"), with(rule("ra", "acme"), func(b *command.RulePut) { b.Create = false }),
		with(host("a.example.com", "acme", ""), func(b *command.HostPut) { b.Create = false }))
}
