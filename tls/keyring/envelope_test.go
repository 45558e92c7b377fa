package keyring_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

func newHPKEKey(t testing.TB) (private, public []byte) {
	t.Helper()
	private, public, err := keyring.NewHPKEKey()
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

func TestEnvelopeBringsTheGroupKeyToItsNode(t *testing.T) {
	private, public := newHPKEKey(t)
	group := derive(t, newMaster(t), "eu", 7)
	e, err := group.SealTo("n1", public)
	if err != nil {
		t.Fatal(err)
	}
	got, err := keyring.OpenEnvelope(e, "n1", private)
	if err != nil {
		t.Fatal(err)
	}
	if got != group {
		t.Error("another key came out")
	}
	sealed, err := group.Seal([]byte("private key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if plaintext, err := got.Open(sealed, nil); err != nil || string(plaintext) != "private key" {
		t.Errorf("%q, %v", plaintext, err)
	}
}

func TestEnvelopeDoesNotOpenForAnyoneElse(t *testing.T) {
	private, public := newHPKEKey(t)
	otherPrivate, _ := newHPKEKey(t)
	good, err := derive(t, newMaster(t), "eu", 7).SealTo("n1", public)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		node    fleet.NodeID
		private []byte
		change  func(*fleet.KeyEnvelope)
		want    error
	}{
		"another node":         {node: "n2", want: fleet.ErrCorrupt},
		"another key":          {private: otherPrivate, want: fleet.ErrCorrupt},
		"another epoch":        {change: func(e *fleet.KeyEnvelope) { e.Epoch++ }, want: fleet.ErrCorrupt},
		"another group":        {change: func(e *fleet.KeyEnvelope) { e.Group = "us" }, want: fleet.ErrCorrupt},
		"a changed ciphertext": {change: func(e *fleet.KeyEnvelope) { e.Ciphertext[0] ^= 1 }, want: fleet.ErrCorrupt},
		"a changed enc":        {change: func(e *fleet.KeyEnvelope) { e.Enc[0] ^= 1 }, want: fleet.ErrCorrupt},
		"a short enc":          {change: func(e *fleet.KeyEnvelope) { e.Enc = e.Enc[:10] }, want: fleet.ErrCorrupt},
		"an empty envelope":    {change: func(e *fleet.KeyEnvelope) { e.Enc, e.Ciphertext = nil, nil }, want: fleet.ErrCorrupt},
		"no group":             {change: func(e *fleet.KeyEnvelope) { e.Group = "" }, want: fleet.ErrInvalid},
		"a damaged own key":    {private: private[1:], want: fleet.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			e := good
			e.Enc, e.Ciphertext = bytes.Clone(good.Enc), bytes.Clone(good.Ciphertext)
			if tc.change != nil {
				tc.change(&e)
			}
			if tc.node == "" {
				tc.node = "n1"
			}
			if tc.private == nil {
				tc.private = private
			}
			if _, err := keyring.OpenEnvelope(e, tc.node, tc.private); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestAPublicKeyThatIsNoneIsRefused(t *testing.T) {
	_, public := newHPKEKey(t)
	if err := keyring.ValidateHPKEKey(public); err != nil {
		t.Errorf("a good key: %v", err)
	}
	for _, bad := range [][]byte{nil, public[1:], append(bytes.Clone(public), 0), bytes.Repeat([]byte{0xFF}, len(public))} {
		if _, err := derive(t, newMaster(t), "eu", 1).SealTo("n1", bad); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
}

func FuzzOpenEnvelope(f *testing.F) {
	private, public := newHPKEKey(f)
	group, err := keyring.DeriveGroupKey(make([]byte, 32), "eu", 7)
	if err != nil {
		f.Fatal(err)
	}
	e, err := group.SealTo("n1", public)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("eu", uint64(7), e.Enc, e.Ciphertext)
	f.Add("", uint64(0), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, name string, epoch uint64, enc, ciphertext []byte) {
		got, err := keyring.OpenEnvelope(fleet.KeyEnvelope{Group: fleet.GroupName(name), Epoch: epoch, Enc: enc, Ciphertext: ciphertext}, "n1", private)
		switch {
		case err == nil && got != group:
			// Anyone may seal to a public key, but not by chance.
			t.Error("a forged envelope opens")
		case err != nil && !errors.Is(err, fleet.ErrCorrupt) && !errors.Is(err, fleet.ErrInvalid):
			t.Errorf("unclassified: %v", err)
		}
	})
}
