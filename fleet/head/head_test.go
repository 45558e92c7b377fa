package head_test

import (
	"crypto/ed25519"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
)

func key(b byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = b
	return ed25519.NewKeyFromSeed(seed)
}

func sample() head.Head {
	return head.Head{Group: "default", Kind: fleet.HeadConfig, Version: fleet.Version{Incarnation: 1, Generation: 7}, Root: fleet.DigestOf([]byte("x"))}
}

func TestSignedHeadVerifies(t *testing.T) {
	k := key(1)
	s, err := head.Sign(sample(), k)
	if err != nil {
		t.Fatal(err)
	}
	got, err := head.Verify(s, []ed25519.PublicKey{key(2).Public().(ed25519.PublicKey), k.Public().(ed25519.PublicKey)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), got); diff != "" {
		t.Error(diff)
	}
}

func TestVerifyRefuses(t *testing.T) {
	k := key(1)
	pub := []ed25519.PublicKey{k.Public().(ed25519.PublicKey)}
	good, err := head.Sign(sample(), k)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := head.Sign(sample(), key(9))
	if err != nil {
		t.Fatal(err)
	}
	flipped := good
	flipped.Head = append([]byte(nil), good.Head...)
	flipped.Head[len(flipped.Head)-3] ^= 1
	renamed := foreign
	renamed.KeyID = good.KeyID
	big := good
	big.Head = make([]byte, 5<<10)
	for name, tc := range map[string]struct {
		in   fleet.SignedHead
		want error
	}{
		"a head of another key":              {foreign, fleet.ErrDenied},
		"a head that claims the right key":   {renamed, fleet.ErrDenied},
		"a changed head":                     {flipped, fleet.ErrDenied},
		"a head larger than any head can be": {big, fleet.ErrTooLarge},
		"an empty head":                      {fleet.SignedHead{}, fleet.ErrDenied},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := head.Verify(tc.in, pub); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestAcceptFollowsTheOrder(t *testing.T) {
	h := sample()
	other := fleet.DigestOf([]byte("y"))
	for name, tc := range map[string]struct {
		cur  fleet.Version
		root fleet.Digest
		want error
	}{
		"the first head":                          {fleet.Version{}, "", nil},
		"an older generation before it":           {fleet.Version{Incarnation: 1, Generation: 6}, other, nil},
		"the same head again":                     {h.Version, h.Root, fleet.ErrStale},
		"the same generation with another root":   {h.Version, other, fleet.ErrConflict},
		"a newer generation before it":            {fleet.Version{Incarnation: 1, Generation: 8}, other, fleet.ErrStale},
		"a newer incarnation with a lower number": {fleet.Version{Incarnation: 2, Generation: 1}, other, fleet.ErrStale},
	} {
		t.Run(name, func(t *testing.T) {
			if err := head.Accept(tc.cur, tc.root, h); !errors.Is(err, tc.want) || (tc.want == nil && err != nil) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func FuzzVerify(f *testing.F) {
	k := key(1)
	s, _ := head.Sign(sample(), k)
	f.Add([]byte(s.Head), s.KeyID, s.Signature)
	f.Fuzz(func(t *testing.T, h []byte, id string, sig []byte) {
		got, err := head.Verify(fleet.SignedHead{Head: h, KeyID: id, Signature: sig}, []ed25519.PublicKey{k.Public().(ed25519.PublicKey)})
		if err == nil && got.Validate() != nil {
			t.Errorf("verified an invalid head %+v", got)
		}
	})
}
