package fsm_test

import (
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// upload is an uploaded certificate of a.example.com.
func upload(of fleet.TenantID, generation uint64, spki string) command.CertificateUpload {
	return command.CertificateUpload{Certificate: fleet.CertificateRecord{Key: sealedSecret(), Certificate: fleet.Certificate{
		Host: "a.example.com", Tenant: of, Generation: generation, Chain: "chain", SPKI: spki, Serial: "own", Source: fleet.SourceUploaded,
		NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(20 * 24 * time.Hour),
	}}}
}

func renew(generation uint64) command.CertificateRenew {
	return command.CertificateRenew{Host: "a.example.com", Tenant: "acme", Generation: generation}
}

func revoke(generation uint64, now bool) command.CertificateRevoke {
	return command.CertificateRevoke{Host: "a.example.com", Tenant: "acme", Generation: generation, Reason: fleet.RevokeKeyCompromise, Now: now}
}

func remove(generation uint64) command.CertificateRemove {
	return command.CertificateRemove{Host: "a.example.com", Tenant: "acme", Generation: generation}
}

// policy sets where the certificate of a.example.com comes from.
func policy(p fleet.CertificatePolicy) command.HostPut {
	b := host("a.example.com", "acme", "")
	b.Create, b.Label, b.Spec.Certificate = false, "", p
	return b
}

// lasting is a commit of a certificate that lasts.
func lasting(o fleet.OrderID, generation uint64) command.CertificateCommit {
	c := commit(o, "a.example.com", "acme", generation)
	c.Certificate.Serial, c.Certificate.NotAfter, c.Certificate.Chain = string(o), noon.Add(90*24*time.Hour), "chain"
	return c
}

const revoked2 = "a.example.com/oa2"

func TestUploadedCertificates(t *testing.T) {
	mine := upload("acme", 2, "mine")
	const object = "certificate/a.example.com"
	stands := func(generation uint64, source string, orders int) func(*testing.T, *state.View) {
		return func(t *testing.T, v *state.View) {
			t.Helper()
			c, _ := v.Certificate("a.example.com")
			if c.Generation != generation || c.Source != source || len(v.OrdersOf("a.example.com")) != orders {
				t.Errorf("generation %d from %q with %d orders", c.Generation, c.Source, len(v.OrdersOf("a.example.com")))
			}
		}
	}
	rekey := command.GroupRekey{Group: "default", From: 1, Cause: fleet.EpochRekey, Certificates: true}
	run(t, []testCase{
		{name: "an upload replaces what was ordered and ends the order under way", when: mine, object: object, of: "acme", then: stands(2, fleet.SourceUploaded, 0)},
		{name: "an upload over a generation that nobody has seen is refused", when: upload("acme", 3, "mine"), refused: fleet.ErrChanged, says: "generation 1", then: stands(1, "", 1)},
		{name: "an upload for a host of somebody else is refused as if it did not exist", when: upload("beta", 2, "mine"), refused: fleet.ErrNotFound, unsaid: "acme"},
		{name: "an upload for a host that is to have none is refused", given: []command.Body{policy(fleet.CertificateNone)}, when: mine, refused: fleet.ErrConflict, says: "--certificate own"},
		{name: "an upload without a key is refused", when: with(mine, func(b *command.CertificateUpload) { b.Certificate.Key = fleet.Sealed{} }), refused: fleet.ErrInvalid},
		{name: "an upload that says it was ordered is refused", when: with(mine, func(b *command.CertificateUpload) { b.Certificate.Source = "" }), refused: fleet.ErrInvalid},
		{name: "the same key after a node was stolen is refused", given: []command.Body{mine, rekey}, when: upload("acme", 3, "mine"), refused: fleet.ErrInvalid, says: "somebody else may know"},
		{name: "another key after a node was stolen is taken", given: []command.Body{mine, rekey}, when: upload("acme", 3, "fresh"), object: "certificate/a.example.com", of: "acme", then: stands(3, fleet.SourceUploaded, 0)},
		{name: "what is uploaded is not renewed", given: []command.Body{mine}, when: renew(2), refused: fleet.ErrConflict, says: "cert upload"},
		{name: "what is uploaded is not revoked here", given: []command.Body{mine}, when: revoke(2, true), refused: fleet.ErrConflict, says: "cert upload"},
		{name: "a removed one serves until its successor is there", given: []command.Body{mine}, when: remove(2), object: object, of: "acme", then: func(t *testing.T, v *state.View) {
			t.Helper()
			if c, _ := v.Certificate("a.example.com"); c.Own() || !c.RenewAt().Equal(noon) || c.Generation != 2 {
				t.Errorf("%+v", c.Certificate)
			}
		}},
		{name: "it is removed once", given: []command.Body{mine, remove(2)}, when: remove(2), refused: fleet.ErrConflict, says: "removed already"},
		{name: "where nothing is ordered, a removed one is gone", given: []command.Body{policy(fleet.CertificateOwn), mine}, when: remove(2), object: object, of: "acme", then: stands(0, "", 0)},
		{name: "one that was ordered is not removed", when: remove(1), refused: fleet.ErrConflict, says: "was not uploaded"},
		{name: "nothing is removed that nobody has seen", given: []command.Body{mine}, when: remove(1), refused: fleet.ErrChanged},
		{name: "a host that takes its own certificate only has no orders", when: policy(fleet.CertificateOwn), object: "host/a.example.com", of: "acme", then: stands(1, "", 0)},
		{name: "a host cannot get its certificate from nowhere", when: policy("elsewhere"), refused: fleet.ErrInvalid, says: "acme, own or none"},
		{name: "clients cannot show certificates where the edge has none", when: with(policy(fleet.CertificateNone), func(b *command.HostPut) { b.Spec.TLS.HSTS.MaxAge = 31536000 }), refused: fleet.ErrInvalid, says: "hsts"},
	})
}

func TestCertificatesAreRenewedAndRevokedOnDemand(t *testing.T) {
	second := lasting("oa2", 2)
	third := []command.Body{order("oa3", "a.example.com", "acme", 3), lasting("oa3", 3)}
	rekey := command.GroupRekey{Group: "default", From: 1, Cause: fleet.EpochRekey, Certificates: true}
	waits := func(want fleet.RevocationState, n int) func(*testing.T, *state.View) {
		return func(t *testing.T, v *state.View) {
			t.Helper()
			all := v.RevocationsOf("a.example.com")
			if len(all) != n {
				t.Fatalf("%d revocations, want %d", len(all), n)
			}
			if n > 0 && (all[0].ID != revoked2 || all[0].State != want || all[0].Reason.Code() != 1 || all[0].Generation != 2 || (want == fleet.RevocationWaiting) != (all[0].Chain != "")) {
				t.Errorf("%+v", all[0])
			}
		}
	}
	after := append([]command.Body{second, rekey}, third...)
	run(t, []testCase{
		{name: "a renewal that is asked for is due now", given: []command.Body{second}, when: renew(2), object: "certificate/a.example.com", of: "acme", then: func(t *testing.T, v *state.View) {
			t.Helper()
			if c, _ := v.Certificate("a.example.com"); !c.RenewAt().Equal(noon) || c.Renewal.Source != fleet.RenewalRequested {
				t.Errorf("%+v", c.Renewal)
			}
		}},
		{name: "not while one is under way", when: renew(1), refused: fleet.ErrConflict, says: "being renewed already"},
		{name: "not for a tenant that does not own the host", when: with(renew(1), func(b *command.CertificateRenew) { b.Tenant = "beta" }), refused: fleet.ErrNotFound},
		{name: "not where nothing is ordered", given: []command.Body{policy(fleet.CertificateOwn)}, when: renew(1), refused: fleet.ErrConflict, says: "--certificate acme"},
		{name: "a renewal does not count as a new key after a node was stolen", given: []command.Body{second, rekey}, when: renew(2), object: "certificate/a.example.com", of: "acme", then: func(t *testing.T, v *state.View) {
			t.Helper()
			if c, _ := v.Certificate("a.example.com"); !v.Epoch("default").Rekeys(c.Certificate) {
				t.Error("the key of before counts as new")
			}
		}},
		{name: "a certificate that is to be revoked waits for its successor", given: []command.Body{second}, when: revoke(2, false), object: "certificate/a.example.com", of: "acme", then: waits("", 0)},
		{name: "its successor has the authority revoke it", given: []command.Body{second, revoke(2, false), third[0]}, when: third[1], object: "certificate/a.example.com", of: "acme", then: waits(fleet.RevocationWaiting, 1)},
		{name: "or at once", given: []command.Body{second}, when: revoke(2, true), object: "certificate/a.example.com", of: "acme", then: waits(fleet.RevocationWaiting, 1)},
		{name: "one that replaces the key of a stolen node does too", given: append([]command.Body{second, rekey}, third[0]), when: third[1], object: "certificate/a.example.com", of: "acme", then: waits(fleet.RevocationWaiting, 1)},
		{name: "an ordinary renewal does not", given: []command.Body{second, third[0]}, when: third[1], object: "certificate/a.example.com", of: "acme", then: waits("", 0)},
		{name: "no reason of one's own", given: []command.Body{second}, when: with(revoke(2, true), func(b *command.CertificateRevoke) { b.Reason = "bored" }), refused: fleet.ErrInvalid, says: "key_compromise"},
		{name: "an attempt that failed is no audit entry", given: after, when: command.RevocationPut{ID: revoked2, Attempts: 1, NextAttempt: noon, Problem: "away"}, entries: -1, then: waits(fleet.RevocationWaiting, 1)},
		{name: "one that succeeded is", given: after, when: command.RevocationPut{ID: revoked2, Revoked: true}, object: "certificate/a.example.com", of: "acme", then: waits(fleet.RevocationDone, 1)},
		{name: "what is revoked stays revoked", given: append(after[:len(after):len(after)], command.RevocationPut{ID: revoked2, Revoked: true}), when: command.RevocationPut{ID: revoked2, Attempts: 1}, refused: fleet.ErrConflict},
		{name: "it is kept until the certificate ends", given: after, when: command.RevocationPut{ID: revoked2, Forget: true}, refused: fleet.ErrConflict, says: "has not ended"},
		{name: "nothing is known of others", when: command.RevocationPut{ID: "b/1"}, refused: fleet.ErrNotFound},
		{name: "a deleted host leaves its revocations", given: after, when: command.HostDelete{Name: "a.example.com", Tenant: "acme"}, object: "host/a.example.com", of: "acme", then: waits(fleet.RevocationWaiting, 1)},
	})
}

func TestARevocationIsForgottenWhenItsCertificateHasEnded(t *testing.T) {
	w := city(t).must(t, lasting("oa2", 2), revoke(2, true))
	w.now = noon.Add(91 * 24 * time.Hour)
	w.must(t, command.RevocationPut{ID: revoked2, Forget: true})
	if n := len(w.state.Read().Revocations()); n != 0 {
		t.Errorf("%d are kept", n)
	}
}

// brought is what people do with certificates.
func (d dice) brought() command.Body {
	switch d.IntN(6) {
	case 0:
		b := policy(pick(d, fleet.CertificateACME, fleet.CertificateACME, fleet.CertificateOwn, fleet.CertificateNone))
		return b
	case 1:
		return upload("acme", 1+d.Uint64N(3), pick(d, "mine", "other"))
	case 2:
		return remove(1 + d.Uint64N(3))
	case 3:
		return renew(1 + d.Uint64N(3))
	case 4:
		return revoke(1+d.Uint64N(3), d.IntN(2) == 0)
	}
	return command.RevocationPut{ID: pick(d, "a.example.com/", "a.example.com/"+pick(d, "1", "2")), Revoked: d.IntN(3) == 0, Attempts: d.IntN(3), Forget: d.IntN(4) == 0}
}
