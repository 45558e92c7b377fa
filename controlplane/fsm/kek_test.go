package fsm_test

import (
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// rotateKEK makes another key-encryption key seal the cluster's secrets.
func rotateKEK(from, to string, members ...fleet.MemberID) command.KEKRotate {
	b := command.KEKRotate{From: from, To: to, Members: members, Secrets: map[fleet.SecretName]fleet.Sealed{}}
	for name := range clusterInit().Cluster.Secrets {
		b.Secrets[name] = sealedBy(to)
	}
	return b
}

func sealedBy(key string) fleet.Sealed {
	return with(sealedSecret(), func(s *fleet.Sealed) { s.Key = key })
}

func TestTheKeyEncryptionKeyIsRotated(t *testing.T) {
	m2 := command.MemberPut{Member: fleet.Member{ID: "m2", API: "127.0.0.2:1"}}
	kek := func(want string) func(*testing.T, *state.View) {
		return func(t *testing.T, v *state.View) {
			t.Helper()
			c, _ := v.Cluster()
			for name, s := range c.Secrets {
				if s.Key != want || c.KEK() != want {
					t.Errorf("%s is sealed by %s, %s seals, want %s", name, s.Key, c.KEK(), want)
				}
			}
		}
	}
	run(t, []testCase{
		{name: "every secret of the cluster at once", when: rotateKEK("kek", "kek-1", "m1"), object: "cluster/c1", then: kek("kek-1")},
		{name: "once more", given: []command.Body{rotateKEK("kek", "kek-1", "m1")}, when: rotateKEK("kek-1", "kek-2", "m1"), object: "cluster/c1", then: kek("kek-2")},
		{name: "not from a key that was replaced", given: []command.Body{rotateKEK("kek", "kek-1", "m1")}, when: rotateKEK("kek", "kek-2", "m1"), refused: fleet.ErrConflict, says: "kek-1 seals now", then: kek("kek-1")},
		{name: "not to the same key", when: rotateKEK("kek", "kek", "m1"), refused: fleet.ErrInvalid, says: "a name of its own"},
		{name: "not to no key", when: rotateKEK("kek", "", "m1"), refused: fleet.ErrInvalid, says: "a name of its own"},
		{name: "not past a member that nobody asked", given: []command.Body{m2}, when: rotateKEK("kek", "kek-1", "m1"), refused: fleet.ErrConflict, says: "member m2 joined meanwhile", then: kek("kek")},
		{name: "a member that was asked and is gone is in nobody's way", when: rotateKEK("kek", "kek-1", "m1", "m2"), object: "cluster/c1"},
		{name: "not without a secret of the cluster", when: with(rotateKEK("kek", "kek-1", "m1"), func(b *command.KEKRotate) { delete(b.Secrets, fleet.SecretNodeCA) }), refused: fleet.ErrInvalid, says: "every secret of the cluster"},
		{name: "not with a secret more", when: with(rotateKEK("kek", "kek-1", "m1"), func(b *command.KEKRotate) { b.Secrets["x"] = sealedBy("kek-1") }), refused: fleet.ErrInvalid, says: "and no other"},
		{name: "not with a secret that another key sealed", when: with(rotateKEK("kek", "kek-1", "m1"), func(b *command.KEKRotate) { b.Secrets[fleet.SecretNodeCA] = sealedBy("kek") }), refused: fleet.ErrInvalid, says: `sealed by "kek", not by "kek-1"`},
	})
}

func TestSecretsAreSealedAnew(t *testing.T) {
	given := []command.Body{
		command.EntryPut{Key: "acme/account", Value: []byte("old")}, rotateKEK("kek", "kek-1", "m1"),
	}
	all := command.SecretsReseal{
		KEK:          "kek-1",
		Certificates: []command.CertificateReseal{{Host: "a.example.com", Generation: 1, Key: sealedBy("kek-1")}},
		Orders:       []command.OrderReseal{{ID: "oa2", Key: sealedBy("kek-1")}},
		Entries:      []command.EntryReseal{{Key: "acme/account", Was: fleet.DigestOf([]byte("old")), Value: []byte("new")}},
	}
	seals := func(certificate, order, entry string) func(*testing.T, *state.View) {
		return func(t *testing.T, v *state.View) {
			t.Helper()
			c, _ := v.Certificate("a.example.com")
			o, _ := v.Order("oa2")
			e, _ := v.Entry("acme/account")
			if c.Key.Key != certificate || o.Key.Key != order || string(e.Value) != entry {
				t.Errorf("%s, %s, %s; want %s, %s, %s", c.Key.Key, o.Key.Key, e.Value, certificate, order, entry)
			}
		}
	}
	stale := with(order("oa2", "a.example.com", "acme", 2), func(b *command.OrderPut) { b.Create = false; b.Order.Problem = "the CA is away" })
	run(t, []testCase{
		{name: "a certificate, an order and a value", given: given, when: all, object: "cluster/c1", then: seals("kek-1", "kek-1", "new")},
		{name: "a certificate that has changed stays", given: given, when: with(all, func(b *command.SecretsReseal) {
			b.Certificates = []command.CertificateReseal{{Host: "a.example.com", Generation: 7, Key: sealedBy("kek-1")}}
		}), then: seals("kek", "kek-1", "new")},
		{name: "a value that has changed stays", given: given, when: with(all, func(b *command.SecretsReseal) {
			b.Entries = []command.EntryReseal{{Key: "acme/account", Was: fleet.DigestOf([]byte("older")), Value: []byte("new")}}
		}), then: seals("kek-1", "kek-1", "old")},
		{name: "not by a key that seals no more", given: given, when: with(all, func(b *command.SecretsReseal) { b.KEK = "kek" }), refused: fleet.ErrConflict, says: "kek-1 seals now", then: seals("kek", "kek", "old")},
		{name: "what another key sealed stays away", given: given, when: with(all, func(b *command.SecretsReseal) {
			b.Orders = []command.OrderReseal{{ID: "oa2", Key: sealedBy("kek")}}
		}), then: seals("kek-1", "kek", "new")},
		{name: "an attempt that began before keeps the order's key as it is now", given: append(append([]command.Body{}, given...), all), when: stale, object: "order/oa2", of: "acme", then: seals("kek-1", "kek-1", "new")},
	})
}
