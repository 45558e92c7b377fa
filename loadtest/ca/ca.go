// Package ca runs Let's Encrypt's test CA, Pebble, as the load test's authority.
//
// It owns how Pebble is put together and which of its requests are served at one time; what a CA does is Pebble's. It
// keeps its accounts and orders in memory: a CA that is started again has forgotten them, and its clients make new ones.
package ca

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"github.com/edgefleet/edgefleet/fleet"
)

// Profile is the one certificate profile that there is.
const Profile = "tlsserver"

// headerLimit bounds how long a client may take for the head of a request.
const headerLimit = 10 * time.Second

// Options configure the CA. All fields are required.
type Options struct {
	// Listen is the address of the ACME server, Management that of its roots.
	Listen, Management string
	// Cert and Key are the files of the certificate of both.
	Cert, Key string
	// HTTPPort and TLSPort are where names are proved.
	HTTPPort, TLSPort int
	// Resolver is the name server that it asks.
	Resolver string
	// Validity is how long its certificates last.
	Validity time.Duration
}

func (o Options) validate() error {
	if o.Listen == "" || o.Management == "" || o.Cert == "" || o.Key == "" || o.Resolver == "" {
		return fleet.Invalid("ca", "the CA needs addresses, a certificate with its key, and a resolver")
	}
	if o.HTTPPort < 1 || o.TLSPort < 1 || o.Validity < time.Second {
		return fleet.Invalid("ca", "the CA needs the ports at which names are proved, and a validity of a second at least")
	}
	return nil
}

// Run serves until ctx ends. What Pebble reads from its environment it reads here too.
func Run(ctx context.Context, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	// What Pebble logs of each request would take more of the machine than the request does; what clients have to know
	// is in its answers.
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	quiet.SetOutput(io.Discard) // so that nothing is formatted either
	store := db.NewMemoryStore()
	const second = 1 // what clients are told to wait between two looks
	front := wfe.New(quiet, store, va.New(quiet, o.HTTPPort, o.TLSPort, false, o.Resolver, store),
		ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{Profile: {Description: "for servers", ValidityPeriod: uint64(o.Validity / time.Second)}}),
		[]string{"pebble.letsencrypt.org"}, false, false, second, second)
	failed := make(chan error, 2)
	for address, handler := range map[string]http.Handler{o.Listen: Apart(front.Handler()), o.Management: front.ManagementHandler()} {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("listen as CA: %w", err)
		}
		s := &http.Server{Handler: handler, ReadHeaderTimeout: headerLimit, ErrorLog: quiet}
		stop := context.AfterFunc(ctx, func() { _ = s.Close() })
		defer stop()
		go func() { failed <- s.ServeTLS(ln, o.Cert, o.Key) }() // ends with ctx
	}
	err := <-failed
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve as CA: %w", err)
}

// Paths of Pebble's requests.
const (
	newOrder       = "/order-plz"
	authorizations = "/authZ/"
)

// Apart keeps new orders and looks at authorizations from being served at one time: Pebble 2.10.1 may lock itself up for
// ever in them. A look holds the authorization's lock and waits for the store's, to find the account; a new order
// holds the store's and waits for those of all authorizations, to find one that is valid; and when a third request waits to
// write to the store in between, the look waits behind it. The more authorizations there are, the longer the new order
// goes through them, and the sooner this comes: after some minutes with tens of orders at one time.
func Apart(pebble http.Handler) http.Handler {
	var mu sync.RWMutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == newOrder:
			mu.Lock()
			defer mu.Unlock()
		case strings.HasPrefix(r.URL.Path, authorizations):
			mu.RLock()
			defer mu.RUnlock()
		}
		pebble.ServeHTTP(w, r)
	})
}
