package keys_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

var noon = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)

func kek(t *testing.T) *keyring.KEK {
	t.Helper()
	k, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func cluster(t *testing.T, sealer keyring.Sealer) fleet.ClusterRecord {
	t.Helper()
	c, err := keys.Generate("c1", "edge.example.net", sealer, ed25519.PublicKey("recovery"), noon)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatOneMemberGeneratesEveryMemberWithTheKEKOpens(t *testing.T) {
	sealer := kek(t)
	c := cluster(t, sealer)
	if c.ID != "c1" || c.Zone != "edge.example.net" || string(c.RecoveryKey) != "recovery" || len(c.AuditKey) != ed25519.PublicKeySize {
		t.Errorf("%+v", c.Cluster)
	}
	one, err := keys.Open(c, sealer)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(c) // the other member has it from the log
	if err != nil {
		t.Fatal(err)
	}
	var heard fleet.ClusterRecord
	if err := fleet.DecodeStrict(b, &heard); err != nil {
		t.Fatal(err)
	}
	other, err := keys.Open(heard, sealer)
	if err != nil {
		t.Fatal(err)
	}
	gh := fleet.GroupHead{Group: "default", Kind: fleet.HeadConfig, Version: fleet.Version{Incarnation: 1, Generation: 7}, Root: fleet.DigestOf(nil)}
	s1, err := one.SignHead(gh)
	if err != nil {
		t.Fatal(err)
	}
	s2, err := other.SignHead(gh)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s1, s2); diff != "" {
		t.Errorf("two members sign the same head differently: %s", diff)
	}
	if h, err := head.Verify(s1, []ed25519.PublicKey{c.HeadKeys[0]}); err != nil || h.Version != gh.Version || h.Group != gh.Group {
		t.Errorf("%+v %v", h, err)
	}
	g1, err := one.Group("default", 1)
	if err != nil {
		t.Fatal(err)
	}
	g2, err := other.Group("default", 1)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := g1.Seal([]byte("secret"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := g2.Open(sealed, []byte("aad")); err != nil || string(plain) != "secret" {
		t.Errorf("%q %v", plain, err)
	}
	if second, _ := one.Group("second", 1); second == g1 {
		t.Error("two groups share a key")
	}
	for name, ca := range map[string]interface{ CertPEM() []byte }{c.MemberCA: one.MemberCA, c.NodeCA: one.NodeCA, c.APICA: one.APICA} {
		if string(ca.CertPEM()) != name {
			t.Error("an authority is in the wrong place")
		}
	}
	if c.MemberCA == c.NodeCA || c.NodeCA == c.APICA {
		t.Error("authorities are shared")
	}
}

func TestClustersShareNothing(t *testing.T) {
	sealer := kek(t)
	a, b := cluster(t, sealer), cluster(t, sealer)
	if string(a.HeadKeys[0]) == string(b.HeadKeys[0]) || string(a.AuditKey) == string(b.AuditKey) || a.NodeCA == b.NodeCA {
		t.Error("two clusters share a key")
	}
	if string(a.Secrets[fleet.SecretGroupMaster].Ciphertext) == string(b.Secrets[fleet.SecretGroupMaster].Ciphertext) {
		t.Error("two clusters share a group master")
	}
}

func TestAWrongKEKIsRefusedWithWhatToDo(t *testing.T) {
	c := cluster(t, kek(t))
	_, err := keys.Open(c, kek(t))
	var e *fleet.Error
	if !errors.As(err, &e) || !errors.Is(err, fleet.ErrDenied) || e.Field != "kek_file" || !strings.Contains(e.Message, "cluster c1") || !strings.Contains(e.Message, "kek_file") {
		t.Errorf("got %v", err)
	}
}

func TestSecretsThatWereMovedOrLostAreRefused(t *testing.T) {
	sealer := kek(t)
	for name, change := range map[string]func(c *fleet.ClusterRecord){
		"two secrets swapped": func(c *fleet.ClusterRecord) {
			c.Secrets[fleet.SecretNodeCA], c.Secrets[fleet.SecretMemberCA] = c.Secrets[fleet.SecretMemberCA], c.Secrets[fleet.SecretNodeCA]
		},
		"secrets of another cluster": func(c *fleet.ClusterRecord) { c.ID = "c2" },
		"no head key":                func(c *fleet.ClusterRecord) { delete(c.Secrets, fleet.SecretHeadKey) },
		"no node CA key":             func(c *fleet.ClusterRecord) { delete(c.Secrets, fleet.SecretNodeCA) },
		"no group master":            func(c *fleet.ClusterRecord) { delete(c.Secrets, fleet.SecretGroupMaster) },
		"a certificate of another CA": func(c *fleet.ClusterRecord) {
			c.NodeCA = c.APICA
		},
		"a head key that nodes do not know": func(c *fleet.ClusterRecord) { c.HeadKeys = [][]byte{c.AuditKey} },
		"no certificate at all":             func(c *fleet.ClusterRecord) { c.MemberCA = "" },
	} {
		c := cluster(t, sealer)
		change(&c)
		if k, err := keys.Open(c, sealer); err == nil || k != nil {
			t.Errorf("%s is opened", name)
		}
	}
}

func TestAMemberWithoutTheKEKIsSealed(t *testing.T) {
	var k *keys.Keys
	_, sign := k.SignHead(fleet.GroupHead{})
	_, group := k.Group("default", 1)
	for _, err := range []error{k.Check(), sign, group} {
		var e *fleet.Error
		if !errors.As(err, &e) || !errors.Is(err, fleet.ErrSealed) || !strings.Contains(e.Message, "set kek_file") {
			t.Errorf("got %v", err)
		}
	}
	sealer := kek(t)
	k, err := keys.Open(cluster(t, sealer), sealer)
	if err != nil || k.Check() != nil {
		t.Error(err, k.Check())
	}
}

func TestNoSecretIsStoredInTheClear(t *testing.T) {
	sealer := kek(t)
	c := cluster(t, sealer)
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range c.Secrets {
		plain, err := sealer.Open(s, keyring.SecretAAD("c1", name))
		if err != nil {
			t.Fatal(err)
		}
		enc, _ := json.Marshal(plain)
		if len(plain) < 32 || strings.Contains(string(b), strings.Trim(string(enc), `"=`)) {
			t.Errorf("%s is stored in the clear", name)
		}
	}
	if len(c.Secrets) != 6 {
		t.Errorf("%d secrets", len(c.Secrets))
	}
}
