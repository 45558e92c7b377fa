package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// Pauses between two attempts to find a member.
const (
	findPause    = time.Second
	findMaxPause = 15 * time.Second
)

// JoinDiscovered joins as Join does, by the members that retry_join stands for. It tries until one admits this member or
// refuses it, or ctx ends; say gets a line for each attempt. Addresses are only where to look: that a member is one of the
// token's cluster is proved by the token's pin.
func JoinDiscovered(ctx context.Context, c Config, token string, say func(string)) (fleet.ClusterID, error) {
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 4 || parts[0] != "efm1" {
		return "", badJoinToken()
	}
	if len(c.RetryJoin) == 0 {
		return "", fleet.Invalid("address", "where are the members? Give --address host:port, such as 203.0.113.1:8440, or set retry_join")
	}
	if ok, err := c.empty(); err != nil || !ok {
		_, err = c.requireEmpty("join") // which says what is there
		return "", err
	}
	for pause := findPause; ; pause = min(2*pause, findMaxPause) {
		addrs, err := c.joinAddresses(ctx)
		if err != nil {
			say(err.Error())
		}
		for _, addr := range addrs {
			if err := greet(ctx, addr, parts[3]); err != nil {
				say(fmt.Sprintf("%s: %v", addr, err))
				continue
			}
			cluster, err := Join(ctx, c, token, addr)
			if err == nil || ctx.Err() == nil && !errors.Is(err, fleet.ErrUnavailable) && !errors.Is(err, fleet.ErrTimeout) {
				return cluster, err
			}
			say(fmt.Sprintf("%s: %v", addr, err))
		}
		wait := pause/2 + rand.N(pause/2)
		say(fmt.Sprintf("no member admits this one yet (tried %d addresses of retry_join); trying again in %s", len(addrs), wait.Round(100*time.Millisecond)))
		select {
		case <-ctx.Done():
			return "", fleet.NewError(fleet.ErrTimeout, "retry_join", "no member was found: start one, or give its address with --address")
		case <-time.After(wait):
		}
	}
}

func badJoinToken() error {
	return fleet.Invalid("token", "that is not a member join token (efm1.…): make one with 'fleetctl cluster join-token'")
}

// joinAddresses looks once for what retry_join stands for. The error says what could not be looked up.
func (c Config) joinAddresses(ctx context.Context) (addrs []string, err error) {
	for _, entry := range c.RetryJoin {
		if entry != joinByConsul {
			addrs = append(addrs, entry)
			continue
		}
		consul, openErr := c.Consul.open(observability.Discard())
		if openErr != nil {
			return addrs, openErr
		}
		found, findErr := consul.Members(ctx, c.Consul.MemberService)
		switch {
		case findErr != nil:
			err = fmt.Errorf("consul at %s does not say where members are: %w", c.Consul.Address, findErr)
		case len(found) == 0:
			err = fleet.NewError(fleet.ErrNotFound, "retry_join", "consul at %s knows no member (service %s)", c.Consul.Address, c.Consul.MemberService)
		}
		addrs = append(addrs, found...)
	}
	var others []string
	for _, a := range addrs {
		if a != c.advertised("").API && !slices.Contains(others, a) {
			others = append(others, a)
		}
	}
	return others, err
}

// greet proves that the API at addr is of the cluster with that pin, before the token is shown to it.
func greet(ctx context.Context, addr, pin string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: mtls.PinnedTLS(pin)}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}
