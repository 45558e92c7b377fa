package api

import (
	"context"
	"net/http"

	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerBackups() {
	handle(a, op("backup-status", http.MethodGet, "/v1/cluster/backups", "How scheduled backups stand: the last one, its age, the latest error, and what is kept", operators, fleet.PermClusterRead, fleet.DutyContinuity), a.backupStatus)
}

// backupStatus is answered by the leader, which makes the backups; a member that is asked for what it knows itself says so.
func (a *API) backupStatus(_ context.Context, _ *ReadQuery) (*Body[fleet.BackupStatus], error) {
	return &Body[fleet.BackupStatus]{Body: a.o.Backups()}, nil
}
