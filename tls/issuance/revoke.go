package issuance

import (
	"context"
	"errors"
	"fmt"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgefleet/edgefleet/fleet"
)

// Revoke has the CA revoke the certificate (RFC 8555 section 7.6), as the account that ordered it. One that is revoked
// already is no error, so that it can be repeated. What the CA or the way to it did wrong is a *Problem; without an account
// there it is fleet.ErrNotFound.
func (i *Issuer) Revoke(ctx context.Context, chain []byte, reason fleet.RevocationReason) error {
	leaf, err := parseLeaf(chain)
	if err != nil {
		return err
	}
	if err := reason.Validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	f := &flow{issuer: i}
	ctx = context.WithValue(ctx, flowKey{}, f)
	account, ok, err := f.loadAccount(ctx)
	if err != nil {
		return err
	}
	if !ok {
		return fleet.NewError(fleet.ErrNotFound, "account", "there is no account with the CA at %s: certificates of another CA are revoked there", i.o.Directory)
	}
	if _, err := i.dir(ctx); err != nil {
		return f.explain(ctx, err)
	}
	err = i.client.RevokeCertificate(ctx, account, leaf, nil, reason.Code())
	var p acme.Problem
	if err == nil || errors.As(err, &p) && p.Type == acme.ProblemTypeAlreadyRevoked {
		return nil
	}
	return fmt.Errorf("revoke the certificate with serial %s: %w", leaf.SerialNumber.Text(16), f.explain(ctx, err))
}
