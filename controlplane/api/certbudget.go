package api

import (
	"context"
	"net/http"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerCertBudget() {
	handle(a, op("cert-budget", http.MethodGet, "/v1/certs/budget", "What may still be asked of the certificate authorities", operators, fleet.PermHostsRead, fleet.DutyOperating).leaderFirst(), a.certBudget)
}

func (a *API) certBudget(context.Context, *ReadQuery) (*Body[client.CertBudget], error) {
	return &Body[client.CertBudget]{Body: a.o.CertBudget()}, nil
}
