package head_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
)

func statement(keys ...ed25519.PublicKey) head.Incarnation {
	i := head.Incarnation{Cluster: "c1", Number: 2, Time: time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)}
	for _, k := range keys {
		i.HeadKeys = append(i.HeadKeys, k)
	}
	return i
}

func TestOnlyTheRecoveryKeyBeginsAnIncarnation(t *testing.T) {
	recoveryPub, recovery, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	headPub, headKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := statement(headPub)
	s, err := head.SignIncarnation(want, recovery)
	if err != nil {
		t.Fatal(err)
	}
	got, err := head.VerifyIncarnation(s, recoveryPub, "c1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	byHead, err := head.SignIncarnation(want, headKey)
	if err != nil {
		t.Fatal(err)
	}
	changed := fleet.SignedIncarnation{Statement: bytes.Replace(s.Statement, []byte(`"incarnation":2`), []byte(`"incarnation":3`), 1), Signature: s.Signature}
	signedHead := fleet.SignedIncarnation{Statement: s.Statement, Signature: ed25519.Sign(recovery, append([]byte("edgefleet head v1\x00"), s.Statement...))}
	for name, tt := range map[string]struct {
		s       fleet.SignedIncarnation
		key     []byte
		cluster fleet.ClusterID
	}{
		"signed by the head key":               {byHead, recoveryPub, "c1"},
		"a changed statement":                  {changed, recoveryPub, "c1"},
		"a signature made for something else":  {signedHead, recoveryPub, "c1"},
		"the statement of another cluster":     {s, recoveryPub, "c2"},
		"a node that pinned no recovery key":   {s, nil, "c1"},
		"a recovery key of the wrong size":     {s, recoveryPub[:31], "c1"},
		"an empty statement":                   {fleet.SignedIncarnation{}, recoveryPub, "c1"},
		"a key of the statement's own keys":    {byHead, recoveryPub, "c1"},
		"a statement with a signature cut off": {fleet.SignedIncarnation{Statement: s.Statement, Signature: s.Signature[:10]}, recoveryPub, "c1"},
	} {
		if _, err := head.VerifyIncarnation(tt.s, tt.key, tt.cluster); !errors.Is(err, fleet.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]head.Incarnation{
		"no head keys": statement(), "the first incarnation": {Cluster: "c1", Number: 1, HeadKeys: [][]byte{headPub}},
		"a short key": {Cluster: "c1", Number: 2, HeadKeys: [][]byte{headPub[:5]}}, "no cluster": {Number: 2, HeadKeys: [][]byte{headPub}},
	} {
		if _, err := head.SignIncarnation(bad, recovery); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARecoveryKeyIsReadAndKnownByItsPublicHalf(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	file, err := head.EncodeRecoveryKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := head.ParseRecoveryKey(file, pub); err != nil || !got.Equal(key) {
		t.Errorf("%v", err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := head.ParseRecoveryKey(file, other); !errors.Is(err, fleet.ErrDenied) {
		t.Errorf("another cluster's: %v", err)
	}
	for _, bad := range [][]byte{nil, []byte("x"), []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")} {
		if _, err := head.ParseRecoveryKey(bad, nil); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
