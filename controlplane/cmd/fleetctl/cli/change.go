package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// revised is an object that is changed at the revision that was read.
type revised interface{ AtRevision() uint64 }

// change reads an object, makes a request body of it and patches it, if it is still as it was read.
func change[T revised](ctx context.Context, a *app, s *session, path string, edit func(T) any, show func(T) error, opts ...client.Option) error {
	var before []byte
	var read T
	if err := s.read(ctx, path, nil, &before, &read); err != nil {
		return err
	}
	raw, err := s.Raw(ctx, http.MethodPatch, path, nil, edit(read), append(opts, client.IfMatch(read))...)
	if err != nil {
		return s.explain(ctx, path, before, err)
	}
	return answer(a, raw, show)
}

// removeRead deletes an object that is still as it was when read was read.
func (a *app) removeRead(ctx context.Context, s *session, path string, query url.Values, before []byte, done string) error {
	var meta fleet.Meta
	if err := json.Unmarshal(before, &meta); err != nil {
		return fleet.NewError(fleet.ErrCorrupt, "", "the API's answer cannot be read (%v): is this fleetctl as new as the members?", err)
	}
	return s.explain(ctx, path, before, a.remove(ctx, s, path, query, done, client.IfMatch(meta)))
}

// explain adds to a refusal of a change what came between.
func (s *session) explain(ctx context.Context, path string, before []byte, err error) error {
	var p *client.Problem
	if !errors.Is(err, fleet.ErrChanged) || !errors.As(err, &p) {
		return err
	}
	said := *p
	said.Detail = "somebody else changed it after it was read, and nothing was written"
	now, again := s.Raw(ctx, http.MethodGet, path, nil, nil)
	switch {
	case errors.Is(again, fleet.ErrNotFound):
		said.Detail += "; it is deleted now"
	case again == nil:
		if diff := differences(before, now); len(diff) > 0 {
			said.Detail += ": " + strings.Join(diff, ", ")
		}
	}
	said.Detail += "; look at it, and run the command again if it is still what you want"
	return &said
}

// maxDifferences bounds what is said about one object.
const maxDifferences = 8

// differences lists the fields that people decide about, its spec, in which two versions of an object differ.
func differences(before, after []byte) []string {
	var was, is struct {
		Spec map[string]json.RawMessage `json:"spec"`
	}
	if json.Unmarshal(before, &was) != nil || json.Unmarshal(after, &is) != nil {
		return nil
	}
	names := maps.Clone(is.Spec)
	if names == nil {
		names = map[string]json.RawMessage{}
	}
	maps.Copy(names, was.Spec)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if bytes.Equal(was.Spec[name], is.Spec[name]) {
			continue
		}
		if len(out) == maxDifferences {
			return append(out, "and more")
		}
		out = append(out, fmt.Sprintf("%s was %s and is %s", name, excerpt(was.Spec[name]), excerpt(is.Spec[name])))
	}
	return out
}

func excerpt(v json.RawMessage) string {
	const most = 80
	switch {
	case len(v) == 0:
		return "not set"
	case len(v) > most:
		return string(v[:most]) + "…"
	}
	return string(v)
}
