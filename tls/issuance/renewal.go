package issuance

import (
	"context"
	"errors"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// Window is when a CA wants a certificate to be renewed (RFC 9773).
type Window struct {
	Start, End time.Time
	// Explanation is a page that says why, if the CA names one.
	Explanation string
	// Again is when the CA wants to be asked next, zero if it does not say.
	Again time.Time
}

// Renewal asks the CA when it wants the certificate to be renewed; ok is false if it says nothing about that. What goes
// wrong is a *Problem.
func (i *Issuer) Renewal(ctx context.Context, chain []byte) (w Window, ok bool, err error) {
	leaf, err := parseLeaf(chain)
	if err != nil {
		return Window{}, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	f := &flow{issuer: i}
	ctx = context.WithValue(ctx, flowKey{}, f)
	if _, err := i.dir(ctx); err != nil {
		return Window{}, false, f.explain(ctx, err)
	}
	info, err := i.client.GetRenewalInfo(ctx, leaf)
	switch {
	case errors.Is(err, acme.ErrUnsupported):
		return Window{}, false, nil
	case err != nil:
		return Window{}, false, f.explain(ctx, err)
	}
	w = Window{Start: info.SuggestedWindow.Start.UTC(), End: info.SuggestedWindow.End.UTC(), Explanation: clip(info.ExplanationURL)}
	if info.RetryAfter != nil {
		w.Again = info.RetryAfter.UTC()
	}
	return w, true, nil
}
