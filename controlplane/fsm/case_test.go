package fsm_test

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// testCase is one command in a city after some others.
type testCase struct {
	name  string
	given []command.Body
	when  command.Body
	// refused is the kind of error, nil for an allowed command.
	refused error
	// says is in the refusal, unsaid is not.
	says, unsaid string
	// entries is how many audit entries an allowed command leaves, -1 for none; 0 means one.
	entries int
	// object is what the audit entry is about, of is whose it is.
	object string
	of     fleet.TenantID
	// leaves is the operation of the entry, where it is another than the command's name.
	leaves string
	then   func(t *testing.T, v *state.View)
}

func run(t *testing.T, cases []testCase) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			w := city(t).must(t, tc.given...)
			rows, head := w.rows(t), w.state.Read().AuditHead().Seq
			r := w.apply(t, tc.when)
			w.audit(t)
			entries := w.state.Read().AuditAfter("", head, 1<<20)
			if tc.refused != nil {
				tc.checkRefused(t, r.Err)
				if w.rows(t) != rows {
					t.Error("a refused command changed the state")
				}
			} else {
				if r.Err != nil {
					t.Fatalf("refused: %v", r.Err)
				}
				tc.checkAudit(t, entries)
			}
			if tc.then != nil {
				tc.then(t, w.state.Read())
			}
		})
	}
}

func (tc testCase) checkRefused(t *testing.T, err *fleet.Error) {
	t.Helper()
	if err == nil {
		t.Fatal("allowed")
	}
	if !errors.Is(err, tc.refused) {
		t.Errorf("kind %s, want %v: %v", err.Kind, tc.refused, err)
	}
	if !strings.Contains(err.Message, tc.says) {
		t.Errorf("%q does not say %q", err.Message, tc.says)
	}
	if tc.unsaid != "" && strings.Contains(err.Message, tc.unsaid) {
		t.Errorf("%q gives away %q", err.Message, tc.unsaid)
	}
}

func (tc testCase) checkAudit(t *testing.T, entries []fleet.AuditEntry) {
	t.Helper()
	want := max(tc.entries, 1)
	if tc.entries < 0 {
		want = 0
	}
	if len(entries) != want {
		t.Fatalf("%d audit entries, want %d", len(entries), want)
	}
	for _, e := range entries {
		if e.Operation != cmp.Or(tc.leaves, tc.when.Type().String()) || e.Name != "tok" || e.Source != "192.0.2.9" || e.RequestID != "req" || e.Reason != "test" || !e.Time.Equal(noon) {
			t.Errorf("the entry does not say who and why: %+v", e)
		}
		if tc.object != "" && e.Object != tc.object || e.Tenant != tc.of {
			t.Errorf("the entry is about %s of %q, want %s of %q", e.Object, e.Tenant, tc.object, tc.of)
		}
		if holdsSecret(t, e) {
			t.Errorf("the entry holds a secret: %s %s", e.Before, e.After)
		}
	}
}

func TestNoSetupLeavesASecretInTheAuditLog(t *testing.T) {
	w := city(t)
	es := w.audit(t)
	if len(es) < 20 {
		t.Fatal(len(es))
	}
	for _, e := range es {
		if holdsSecret(t, e) {
			t.Errorf("%s: %s %s", e.Operation, e.Before, e.After)
		}
	}
	// The test itself can see one.
	if !holdsSecret(t, fleet.AuditEntry{After: []byte(`{"hash":"SEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEg="}`)}) {
		t.Error("the test would not see a hash")
	}
	if !slices.ContainsFunc(es, func(e fleet.AuditEntry) bool { return len(e.After) > 0 && e.Before == nil }) {
		t.Error("no entry of something new")
	}
}
