package api_test

import (
	"encoding/pem"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// Nodes refuse the whole configuration of their group for one authority that they cannot read.
func TestAnOriginsAuthorityIsReadBeforeItIsTaken(t *testing.T) {
	f := open(t, 1)
	acme := f.at(0, f.tenant("acme", fleet.SecurityEdge))
	bad := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no certificate")}))
	acme.call("POST", "/v1/tenants/acme/hosts", client.HostCreate{Name: "www.acme.example", Origins: []fleet.Origin{{URL: "https://203.0.113.1", CA: bad}}}).want(422)
}
