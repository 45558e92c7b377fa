package devfleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"golang.org/x/sync/errgroup"
)

// uploadSize is the size of the streamed body.
const uploadSize = 20 << 20

// through runs a check at every edge at the same time.
func (s *story) through(ctx context.Context, check func(context.Context, *visitor) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, v := range s.visitors {
		g.Go(func() error { return check(ctx, v) })
	}
	return g.Wait()
}

func (s *story) newVisitor(i int, fresh bool) *visitor {
	return newVisitor(nodeName(i), at(s.layout.node(i), portHTTPS), string(demoHost), s.roots, fresh)
}

// https makes one verified request through each edge, at the first try: the host is said to be active.
func (s *story) https(ctx context.Context) (note string, err error) {
	if s.roots, err = loadPool(s.acmeRootsFile()); err != nil {
		return "", err
	}
	for i := 1; i <= s.layout.nodes; i++ {
		s.visitors = append(s.visitors, s.newVisitor(i, false))
	}
	return "", s.through(ctx, func(ctx context.Context, v *visitor) error { return v.get(ctx, http.StatusOK, "/") })
}

func (s *story) benign(ctx context.Context) (string, error) {
	return "", s.through(ctx, func(ctx context.Context, v *visitor) error {
		return errors.Join(v.benign(ctx), v.upload(ctx, uploadSize))
	})
}

func (s *story) blocked(ctx context.Context) (string, error) {
	return "", s.through(ctx, func(ctx context.Context, v *visitor) error {
		return v.get(ctx, http.StatusForbidden, attackPath("blocked"))
	})
}

// monitored changes the mode, sees the attack pass at every edge and appear as monitored, and changes back.
func (s *story) monitored(ctx context.Context) (string, error) {
	if err := s.switchMode(ctx, fleet.ModeMonitoring, http.StatusOK); err != nil {
		return "", err
	}
	page := marker("monitored")
	if err := s.through(ctx, func(ctx context.Context, v *visitor) error { return v.get(ctx, http.StatusOK, attackPath(page)) }); err != nil {
		return "", err
	}
	_, e, err := s.event(ctx, page)
	if err != nil {
		return "", err
	}
	if e.Status != fleet.Monitored || e.Type != fleet.AttackSQLi {
		return "", fleet.NewError(fleet.ErrInvalid, "event", "the event says type %s and status %s, wanted sqli and monitored", e.Type, e.Status)
	}
	return "", s.switchMode(ctx, fleet.ModeBlock, http.StatusForbidden)
}

// switchMode sets the host's mode and waits until every edge answers an attack accordingly.
func (s *story) switchMode(ctx context.Context, m fleet.Mode, status int) error {
	if err := s.tenant.setMode(ctx, demoTenant, demoHost, m); err != nil {
		return err
	}
	return s.until(ctx, func(ctx context.Context) error {
		return s.through(ctx, func(ctx context.Context, v *visitor) error { return v.get(ctx, status, attackPath("mode")) })
	})
}

// event waits for the event of an attack on a page, and returns it as the API wrote it, and decoded.
func (s *story) event(ctx context.Context, page string) (raw []byte, e fleet.Event, err error) {
	err = s.until(ctx, func(ctx context.Context) error {
		all, err := s.tenant.events(ctx, demoTenant)
		if err != nil {
			return err
		}
		for _, r := range all {
			var got fleet.Event
			if err := json.Unmarshal(r, &got); err != nil {
				return &fatalError{fmt.Errorf("decode event: %w", err)}
			}
			if strings.Contains(got.Path, page) {
				raw, e = r, got
				return nil
			}
		}
		return fleet.NewError(fleet.ErrNotFound, "event", "among the newest %d events is none for /%s", len(all), page)
	})
	return raw, e, err
}

// masked attacks with a password and a token, and looks for their values in the event and in every file of the fleet.
func (s *story) masked(ctx context.Context) (string, error) {
	page, secrets := marker("login"), []string{rand.Text(), rand.Text()}
	s.maskedPage, s.secrets = page, secrets
	form := url.Values{"user": {"admin' OR 1=1--"}, "password": {secrets[0]}}.Encode()
	for _, v := range s.visitors {
		path := "/" + page + "?token=" + secrets[1]
		if _, err := v.want(ctx, http.StatusForbidden, http.MethodPost, path, "application/x-www-form-urlencoded", strings.NewReader(form)); err != nil {
			return "", err
		}
	}
	raw, e, err := s.event(ctx, page)
	if err != nil {
		return "", err
	}
	points := strings.Join(e.MaskedPoints, " ")
	if !strings.Contains(points, "password") || !strings.Contains(points, "token") {
		return "", fleet.NewError(fleet.ErrInvalid, "masked_points", "the event does not say that password and token were masked: %q", e.MaskedPoints)
	}
	for i, secret := range secrets {
		if strings.Contains(string(raw), secret) {
			return "", fleet.NewError(fleet.ErrInvalid, "event", "the event in the API shows secret %d of the request", i+1)
		}
	}
	return s.scanFiles(ctx)
}

// scanFiles looks for the secrets in the data and logs of every process. It also looks for the page, which is no secret: files without it would mean that the scan looks in the wrong place.
func (s *story) scanFiles(ctx context.Context) (string, error) {
	dirs := []string{s.dir.join(dataDir), s.dir.join(logDir)}
	for _, secret := range s.secrets {
		found, _, err := scan(ctx, secret, dirs...)
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return "", fleet.NewError(fleet.ErrInvalid, "masking", "a secret of the request was written to %d files, the first is %s (%s)", len(found), found[0].path, found[0].what)
		}
	}
	found, read, err := scan(ctx, s.maskedPage, dirs...)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fleet.NewError(fleet.ErrInvalid, "masking", "the event itself is in none of the files that were searched (%d bytes), so the search proves nothing", read)
	}
	return fmt.Sprintf("%.1f MB searched", float64(read)/(1<<20)), nil
}

// rule adds a rule and trusts the receipt: as soon as it says live everywhere, every edge must obey.
func (s *story) rule(ctx context.Context) (string, error) {
	word := marker("forbidden")
	path := "/?say=" + word
	if err := s.through(ctx, func(ctx context.Context, v *visitor) error { return v.get(ctx, http.StatusOK, path) }); err != nil {
		return "", err
	}
	before, err := s.tenant.rulesetStatus(ctx, demoTenant)
	if err != nil {
		return "", err
	}
	start := time.Now()
	if _, err := again(ctx, func() (any, error) { return nil, s.tenant.addRule(ctx, demoTenant, word, "devfleet") }); err != nil {
		return "", err
	}
	if err := s.until(ctx, func(ctx context.Context) error {
		r, err := s.tenant.rulesetStatus(ctx, demoTenant)
		if err == nil && (r.Version.Compare(before.Version) <= 0 || r.Nodes != s.layout.nodes || r.Live != s.layout.nodes) {
			err = fleet.NewError(fleet.ErrUnavailable, "ruleset", "version %v (before the rule: %v) is live on %d/%d nodes; waiting: %v", r.Version, before.Version, r.Live, r.Nodes, r.Waiting)
		}
		return err
	}); err != nil {
		return "", err
	}
	note := fmt.Sprintf("live on %d/%d nodes after %.1fs", s.layout.nodes, s.layout.nodes, time.Since(start).Seconds())
	return note, s.through(ctx, func(ctx context.Context, v *visitor) error { return v.get(ctx, http.StatusForbidden, path) })
}
