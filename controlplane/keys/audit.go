package keys

import "crypto/ed25519"

// SignAudit signs a statement about the audit chain; ErrSealed without the KEK.
func (k *Keys) SignAudit(message []byte) ([]byte, error) {
	if k == nil {
		return nil, sealed()
	}
	return ed25519.Sign(k.auditKey, message), nil
}
