package api

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/edgefleet/edgefleet/fleet"
)

// An upload is too large to wait in an approval: what waits is its digest. When a second person has approved that, the
// requester uploads the same bytes again, and the change carries the approval out.

// digestOf is the digest of an upload, as an approval holds it and sha256sum prints it.
func digestOf(in any) (string, error) {
	i, ok := in.(*RestoreInput)
	if !ok {
		return "", fmt.Errorf("%T is no upload that can be approved", in)
	}
	sum, err := contentDigest(i.Digest)
	return fmt.Sprintf(`{"sha256":%q}`, hex.EncodeToString(sum)), err
}

// uploadKey is of the approval that an upload was let through with.
type uploadKey struct{}

// carrying is ctx for the one command of an upload that carries out what was approved. Whether the approval still counts
// then is decided when the command is applied.
func carrying(ctx context.Context) context.Context {
	ap, ok := ctx.Value(uploadKey{}).(fleet.Approval)
	if !ok {
		return ctx
	}
	c := callerOf(ctx)
	c.approval, c.approvedBy = ap.ID, ap.Approver
	return context.WithValue(ctx, callerKey{}, c)
}
