package head

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/edgefleet/edgefleet/fleet"
)

// EncodeRecoveryKey is the recovery key as 'controlplane init' writes it: PKCS #8 in PEM.
func EncodeRecoveryKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode recovery key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseRecoveryKey reads what EncodeRecoveryKey wrote. With want, the public half that a cluster knows, another key is
// ErrDenied.
func ParseRecoveryKey(b, want []byte) (ed25519.PrivateKey, error) {
	const ask = "give the file recovery.key that 'controlplane init' wrote for this cluster"
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fleet.Invalid("recovery-key", "that is no recovery key: it holds no PEM block; %s", ask)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		// The error is left out: it may quote the key.
		return nil, fleet.Invalid("recovery-key", "that is no recovery key: the PEM block is no Ed25519 key in PKCS #8; %s", ask)
	}
	if pub, _ := key.Public().(ed25519.PublicKey); want != nil && !pub.Equal(ed25519.PublicKey(want)) {
		return nil, fleet.NewError(fleet.ErrDenied, "recovery-key", "that is the recovery key %s, of another cluster; this one's is %s: %s", KeyID(pub), KeyID(want), ask)
	}
	return key, nil
}
