package api

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/edgefleet/edgefleet/fleet"
)

// An upload is too large to wait in an approval: what waits is its digest. When a second person has approved that, the
// requester uploads the same bytes again, and the change carries the approval out.

// digestOf is the digest of an upload, as an approval holds it and sha256sum prints it; empty for other requests, and for
// an upload that says no valid one, which is refused later.
func digestOf(in any) string {
	i, ok := in.(*RestoreInput)
	if !ok {
		return ""
	}
	sum, err := contentDigest(i.Digest)
	if err != nil {
		return ""
	}
	return fmt.Sprintf(`{"sha256":%q}`, hex.EncodeToString(sum))
}

// uploadApproval finds what the caller asked for with the same bytes, and what became of it, if it still counts.
func (a *API) uploadApproval(op operation, c caller, digest string) (fleet.Approval, bool) {
	now := a.o.Now()
	for _, ap := range a.view().Approvals() {
		open := ap.State == fleet.ApprovalPending || ap.State == fleet.ApprovalApproved
		if ap.Operation == op.id && ap.Requester == c.token.Owner && c.token.Owner != "" && ap.Body == digest && open && now.Before(ap.ExpiresAt) {
			return ap, true
		}
	}
	return fleet.Approval{}, false
}

// carrying is ctx for the one command of an upload that carries out what was approved.
func (a *API) carrying(ctx context.Context, op operation, in any) context.Context {
	if !a.view().Access().FourEyes {
		return ctx
	}
	c := callerOf(ctx)
	ap, ok := a.uploadApproval(op, c, digestOf(in))
	if !ok || ap.State != fleet.ApprovalApproved {
		return ctx
	}
	c.approval, c.approvedBy = ap.ID, ap.Approver
	return context.WithValue(ctx, callerKey{}, c)
}
