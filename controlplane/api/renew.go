package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

func (a *API) registerLocks() {
	handle(a, op("node-unlock", http.MethodPost, "/v1/nodes/{id}/unlock", "End a node's lock, once the other machine is stopped", operators, fleet.PermNodesWrite, fleet.DutyOperating).changes(command.TypeNodeUnlock).answering(http.StatusOK), a.nodeUnlock)
}

// renew answers a node that proves its last key, by a signature and not by its certificate: that may have ended while the
// machine was away.
func (a *API) renew(ctx context.Context, in *Input[fleet.RenewRequest]) (*Body[fleet.EnrolResponse], error) {
	proof, err := a.proved(ctx, in.Body)
	if err != nil {
		return nil, err
	}
	if err := a.o.Keys.Check(); err != nil {
		return nil, err
	}
	id := in.Body.Node
	cert, _, notAfter, err := a.signNode(id, proof.Public)
	if err != nil {
		return nil, err
	}
	c := callerOf(ctx)
	c.node = id // it has proved that it is
	b, err := a.rotation(id, proof, notAfter)
	if err != nil {
		return nil, err
	}
	n, err := propose[fleet.Node](context.WithValue(ctx, callerKey{}, c), a, b)
	if err != nil {
		return nil, err
	}
	if err := n.Refusal(); err != nil {
		a.o.Telemetry.Logger.ErrorContext(ctx, "node locked: its identity is on two machines", "node", id, "source", c.source, "request_id", c.requestID, "reason", n.Lock.Reason)
		return nil, err
	}
	return &Body[fleet.EnrolResponse]{Body: a.identity(n, cert)}, nil
}

// rotation is the command of a renewal. While a member does not know that yet, nodes renew all the same; what looks like a
// second machine has to wait.
func (a *API) rotation(id fleet.NodeID, proof mtls.Renewal, notAfter time.Time) (command.Body, error) {
	v := a.view()
	if format, older := command.Common(v.Members()); format < command.TypeNodeRotate.Since() {
		if n, _ := v.Node(id); n.Identity.SPKI != proof.Last && n.Identity.SPKI != proof.Next {
			return nil, fleet.NewError(fleet.ErrUnavailable, "", "node %s does not renew with its last key, which is not decided about before the members %v are upgraded: try again later", id, older)
		}
		return command.NodeRenew{ID: id, SPKI: proof.Next, NotAfter: notAfter}, nil
	}
	return command.NodeRotate{ID: id, From: proof.Last, SPKI: proof.Next, NotAfter: notAfter}, nil
}

// proved holds a renewal against the node's limits and the proof in it.
func (a *API) proved(ctx context.Context, r fleet.RenewRequest) (mtls.Renewal, error) {
	c, now := callerOf(ctx), a.o.Now()
	if err := a.limiter.check(c.source, now); err != nil {
		return mtls.Renewal{}, err
	}
	if err := fleet.ValidateID("node", r.Node); err != nil {
		return mtls.Renewal{}, err
	}
	if err := a.checkClock(r.Sent); err != nil {
		return mtls.Renewal{}, err
	}
	v := a.view()
	cluster, _ := v.Cluster()
	proof, err := mtls.VerifyRenewal(cluster.ID, cluster.NodeCA, r)
	if err != nil {
		if errors.Is(err, fleet.ErrUnauthenticated) {
			_ = a.limiter.failed(c.source, "", now) // of no API token
		}
		return proof, err
	}
	n, ok := v.Node(r.Node)
	if !ok {
		return proof, fleet.NewError(fleet.ErrDenied, "node", "node %s is not part of this fleet (any more): enrol the machine with the token of `fleetctl node join-token`", r.Node)
	}
	if ended := n.Identity.NotAfter; now.Sub(ended) > fleet.MaxNodeAbsence {
		return proof, fleet.NewError(fleet.ErrDenied, "node", "the last certificate of node %s ended at %s, more than %d days ago, which is too long to come back by its key: `fleetctl node revoke %[1]s`, and enrol the machine as a new node with the token of `fleetctl node join-token`",
			n.ID, ended.UTC().Format(time.RFC3339), fleet.MaxNodeAbsence/(24*time.Hour))
	}
	return proof, n.Refusal()
}

func (a *API) nodeUnlock(ctx context.Context, in *IDPath) (*Body[fleet.Node], error) {
	n, err := a.node(in.ID)
	if err != nil {
		return nil, err
	}
	if err := a.authorizeGroup(ctx, fleet.DutyOperating, n.Spec.Group); err != nil {
		return nil, err
	}
	n, err = propose[fleet.Node](ctx, a, command.NodeUnlock{ID: n.ID})
	return &Body[fleet.Node]{Body: n}, err
}
