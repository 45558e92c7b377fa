package pebbletest

import (
	"encoding/json"
	"math/big"
	"testing"
)

// Status is what the CA says of a certificate that it issued, Valid or Revoked, and for which reason (RFC 5280).
func (p *Pebble) Status(t *testing.T, serial *big.Int) (status string, reason int) {
	t.Helper()
	b, err := p.get(t.Context(), p.management+"/cert-status-by-serial/"+serial.Text(16))
	if err != nil {
		t.Fatalf("ask the CA for a certificate's status: %v", err)
	}
	var s struct {
		Status string
		Reason int
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatalf("the CA's status of a certificate: %v: %s", err, b)
	}
	return s.Status, s.Reason
}
