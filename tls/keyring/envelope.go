package keyring

import (
	"crypto/hpke"
	"fmt"

	"github.com/edgefleet/edgefleet/fleet"
)

// kem is X-Wing, the hybrid of X25519 and ML-KEM-768: an envelope recorded today stays closed to a quantum computer,
// and to whoever breaks only one of the two.
func kem() hpke.KEM { return hpke.MLKEM768X25519() }

// NewHPKEKey makes a node's HPKE key pair; the private half is the 32-byte seed.
func NewHPKEKey() (private, public []byte, err error) {
	k, err := kem().GenerateKey()
	if err != nil {
		return nil, nil, fmt.Errorf("make hpke key: %w", err)
	}
	if private, err = k.Bytes(); err != nil {
		return nil, nil, fmt.Errorf("make hpke key: %w", err)
	}
	return private, k.PublicKey().Bytes(), nil
}

// ValidateHPKEKey reports whether public is a key that SealTo accepts: it is what a newcomer sent.
func ValidateHPKEKey(public []byte) error {
	if _, err := kem().NewPublicKey(public); err != nil {
		return fleet.Invalid("hpke", "the node's HPKE key of %d bytes is not an X25519+ML-KEM-768 public key", len(public))
	}
	return nil
}

// SealTo seals the group key to one node (RFC 9180, base mode). The envelope is public; it opens for this node, group
// and epoch only.
func (g GroupKey) SealTo(node fleet.NodeID, public []byte) (fleet.KeyEnvelope, error) {
	if g.key == [keySize]byte{} {
		return fleet.KeyEnvelope{}, fleet.NewError(fleet.ErrSealed, "group", "the key of group %s is not known: derive it from the master first", g.Group)
	}
	if err := ValidateHPKEKey(public); err != nil {
		return fleet.KeyEnvelope{}, err
	}
	pub, err := kem().NewPublicKey(public)
	if err != nil {
		return fleet.KeyEnvelope{}, fmt.Errorf("seal group key to node %s: %w", node, err)
	}
	enc, sender, err := hpke.NewSender(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), envelopeInfo(node, g.Group, g.Epoch))
	if err != nil {
		return fleet.KeyEnvelope{}, fmt.Errorf("seal group key to node %s: %w", node, err)
	}
	ciphertext, err := sender.Seal(nil, g.key[:])
	if err != nil {
		return fleet.KeyEnvelope{}, fmt.Errorf("seal group key to node %s: %w", node, err)
	}
	return fleet.KeyEnvelope{Group: g.Group, Epoch: g.Epoch, Enc: enc, Ciphertext: ciphertext}, nil
}

// OpenEnvelope gets the group key out of an envelope that was sealed to node. Anything else is fleet.ErrCorrupt.
//
// HPKE's base mode does not say who sealed it: an envelope proves its sender only through the connection or the
// signature that it came by.
func OpenEnvelope(e fleet.KeyEnvelope, node fleet.NodeID, private []byte) (GroupKey, error) {
	priv, err := kem().NewPrivateKey(private)
	if err != nil {
		return GroupKey{}, fleet.Invalid("hpke", "the node's own HPKE key is damaged: enrol the node again")
	}
	if err := fleet.ValidateID("group", e.Group); err != nil {
		return GroupKey{}, err
	}
	refused := fleet.NewError(fleet.ErrCorrupt, "envelope", "the key of group %s, epoch %d, does not open: it was sealed to another node or key, or was changed", e.Group, e.Epoch)
	r, err := hpke.NewRecipient(e.Enc, priv, hpke.HKDFSHA256(), hpke.AES256GCM(), envelopeInfo(node, e.Group, e.Epoch))
	if err != nil {
		return GroupKey{}, refused
	}
	key, err := r.Open(nil, e.Ciphertext)
	if err != nil || len(key) != keySize {
		return GroupKey{}, refused
	}
	g := GroupKey{Group: e.Group, Epoch: e.Epoch}
	copy(g.key[:], key)
	return g, nil
}

func envelopeInfo(node fleet.NodeID, group fleet.GroupName, epoch uint64) []byte {
	return []byte(encode("edgefleet group key", []byte(node), []byte(group), number(epoch)))
}
