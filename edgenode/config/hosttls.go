package config

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"

	"github.com/edgefleet/edgefleet/fleet"
)

// demand fills in what h asks of connections, of a spec that is valid in shape.
func (h *Host) demand(s fleet.HostSpec) error {
	if err := s.CheckCAs(); err != nil {
		return err
	}
	h.MinVersion = tls.VersionTLS12
	if s.TLS.MinVersion == "1.3" {
		h.MinVersion = tls.VersionTLS13
	}
	h.HSTS = s.TLS.HSTS.Header()
	if s.TLS.ClientAuth == fleet.ClientAuthNone {
		return nil
	}
	var err error
	if h.ClientCAs, err = fleet.ParseCAs("tls.client_ca", s.TLS.ClientCA); err != nil {
		return err
	}
	h.ClientAuth = s.TLS.ClientAuth
	sum := sha256.Sum256([]byte(string(s.TLS.ClientAuth) + "\n" + s.TLS.ClientCA))
	h.ClientPolicy = hex.EncodeToString(sum[:])
	return nil
}
