package api

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// HurryTails makes streams of events look around more often than they do.
func (a *API) HurryTails(heartbeat, recheck time.Duration) {
	a.tails.heartbeat, a.tails.recheck = heartbeat, recheck
}

// HurryBodies makes the API wait less for a body.
func (a *API) HurryBodies(d time.Duration) { a.bodyTimeout = d }

// HurrySettling makes the end of a token wait less for other members.
func (a *API) HurrySettling(d time.Duration) { a.settleTimeout = d }

// MaxTails bounds the open streams of a tenant.
const MaxTails = maxTails

// Unmarshal is how bodies are read.
var Unmarshal = unmarshal

// AuthorizeToken holds a token against a made-up operation of a tenant.
func (a *API) AuthorizeToken(scope int, duty fleet.DutyID, t fleet.Token, tenant fleet.TenantID) error {
	return a.authorize(operation{id: "made-up", scope: scopes[scope], permission: fleet.PermSelf, duty: duty}, caller{token: t}, tenant)
}

// Scopes of AuthorizeToken.
const (
	Nobody = iota
	Operators
	TenantOwn
	AnyToken
	NodesOnly
	MembersOnly
	Unknown
)

var scopes = []scope{nobody, operators, tenantOwn, anyToken, nodesOnly, membersOnly, 99}

// OpenTails counts the streams of events that are open.
func (a *API) OpenTails() int {
	a.tails.mu.Lock()
	defer a.tails.mu.Unlock()
	n := 0
	for _, of := range a.tails.open {
		n += of
	}
	return n
}

// Limit changes what each caller may ask for, and forgets what they have.
func (a *API) Limit(l CallerLimits) { a.callers = newCallers(l) }

// LimitNodes changes how many requests of nodes may be under way.
func (a *API) LimitNodes(n int) { a.crowd = newCrowd(n) }

// OpenNodes counts the requests of nodes that are under way.
func (a *API) OpenNodes() int {
	a.crowd.mu.Lock()
	defer a.crowd.mu.Unlock()
	return a.crowd.open
}

// MaxCallers bounds the callers that are counted one by one.
const MaxCallers = maxCallers

// Callers counts requests.
type Callers struct{ *callers }

// NewCallers makes the counts of no callers.
func NewCallers(l CallerLimits) Callers { return Callers{newCallers(l)} }

// Enter counts a request.
func (c Callers) Enter(key string, now time.Time) (func(), error) { return c.enter(key, false, now) }

// Known is how many callers are counted.
func (c Callers) Known() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.known)
}

// LimitWaiting changes how many reads may wait.
func (a *API) LimitWaiting(all, each int) { a.waiting.maxAll, a.waiting.maxEach = all, each }

// Waiting counts the reads that wait.
func (a *API) Waiting() int {
	a.waiting.mu.Lock()
	defer a.waiting.mu.Unlock()
	return a.waiting.all
}

// WaitsFor reports whether an operation can wait for a change.
func WaitsFor(op string) bool { return waitsFor[op] != nil }
