package faulttest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// History is what clients asked and were told, in one order of calls and returns.
type History struct {
	mu    sync.Mutex
	clock int64
	ops   []porcupine.Operation
	// strange are answers that no client may ever get.
	strange []string
	// repeated are changes that were done at a repetition, replayed those whose answer was given again.
	repeated, replayed int
}

func (h *History) tick() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return h.clock
}

func (h *History) add(client int, called int64, in input, out output) {
	returned := h.tick()
	h.mu.Lock()
	defer h.mu.Unlock()
	if in.verb == read && (out.outcome == unknown || out.outcome == refused) {
		return // says nothing
	}
	if out.outcome == unknown {
		returned = 1 << 60
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: called, Output: out, Return: returned})
}

// settle notes a change that a repetition found done, by its own or by an earlier attempt.
func (h *History) settle(replayed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repeated++
	if replayed {
		h.replayed++
	}
}

// Repeated says how many changes were sent again and done, and how many of those had been done before.
func (h *History) Repeated() (done, before int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.repeated, h.replayed
}

func (h *History) odd(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.strange = append(h.strange, fmt.Sprintf(format, args...))
}

func (h *History) operations() []porcupine.Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ops
}

// Strange are the answers that no client may get, whatever happens.
func (h *History) Strange() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.strange
}

// Counts says how many operations had an outcome that their client knows, and how many not.
func (h *History) Counts() (known, open int) {
	for _, op := range h.operations() {
		if out, ok := op.Output.(output); ok && out.outcome == unknown {
			open++
		} else {
			known++
		}
	}
	return known, open
}

// objects is how many registers there are; the fewer, the more clients meet.
const objects = 6

// caller sends a client's request to a member; errNobody is a connection that was refused, with nothing sent.
type caller interface {
	call(ctx context.Context, rng *rand.Rand, to fleet.MemberID, token string, q request, body any) (answer, error)
}

// target is the control plane that clients ask.
type target struct {
	caller
	ids      []fleet.MemberID
	operator string
	ledger   *Ledger
	// prefix begins the names of objects: of histories on one control plane each has its own.
	prefix string
}

// worker is one client: it asks one thing at a time, of any member.
type worker struct {
	target
	history *History
	number  int
	rng     *rand.Rand
	made    int
	keys    int
	// seen is the last value and revision of each object that this client was told.
	seen  map[string]fleet.Tenant
	kit   enrolKit
	gates *gates
	// seed tells its machines from those of other histories on one control plane.
	seed uint64
}

// enrolKit is what a machine shows when it enrols; making one is slow.
type enrolKit struct {
	csr  string
	hpke []byte
}

func newKit() (enrolKit, error) {
	key, err := mtls.NewKey()
	if err != nil {
		return enrolKit{}, err
	}
	csr, err := mtls.CSR(key)
	if err != nil {
		return enrolKit{}, err
	}
	_, public, err := keyring.NewHPKEKey()
	return enrolKit{csr: string(csr), hpke: public}, err
}

// gates are semaphores: join tokens, each of which admits one machine. All clients try the latest.
type gates struct {
	mu     sync.Mutex
	secret string
	number int
	tries  int
}

// run asks until ctx ends.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		limit, cancel := context.WithTimeout(ctx, time.Duration(2+w.rng.IntN(6))*time.Second)
		switch n := w.rng.IntN(100); {
		case n < 35:
			w.read(limit)
		case n < 60:
			w.swap(limit)
		case n < 75:
			w.write(limit)
		case n < 85:
			w.create(limit)
		case n < 90:
			w.remove(limit)
		default:
			w.take(limit)
		}
		cancel()
		_ = sleep(ctx, time.Duration(20+w.rng.IntN(80))*time.Millisecond)
	}
}

func (w *worker) object() string { return fmt.Sprintf("%st%d", w.prefix, w.rng.IntN(objects)) }

// value is one that nobody else writes.
func (w *worker) value() string {
	w.made++
	return fmt.Sprintf("%sc%d-%d.", w.prefix, w.number, w.made)
}

// member is the one that this client asks next.
func (w *worker) member() fleet.MemberID { return w.ids[w.rng.IntN(len(w.ids))] }

// without says whether the answer promises that the request had no effect, though it could not be served.
func (a answer) without() bool {
	text := string(a.body)
	return a.status == http.StatusServiceUnavailable && !strings.Contains(text, "outcome unknown") &&
		(strings.Contains(text, "has no leader at the moment") || strings.Contains(text, "does not lead"))
}

func (w *worker) read(ctx context.Context) {
	o := w.object()
	w.ask(ctx, input{verb: read, object: o}, request{method: http.MethodGet, path: "/v1/tenants/" + o}, nil, map[int]outcome{200: done, 404: absent})
}

func (w *worker) create(ctx context.Context) {
	o, v := w.object(), w.value()
	w.ask(ctx, input{verb: create, object: o, value: v}, request{method: http.MethodPost, path: "/v1/tenants"},
		client.TenantCreate{ID: fleet.TenantID(o), Name: v}, map[int]outcome{201: done, 409: differs})
}

func (w *worker) swap(ctx context.Context) {
	o := w.object()
	t, ok := w.seen[o]
	if !ok {
		w.read(ctx)
		return
	}
	v := w.value()
	w.ask(ctx, input{verb: swap, object: o, value: v, expect: t.Spec.Name},
		request{method: http.MethodPatch, path: "/v1/tenants/" + o, match: strconv.Quote(strconv.FormatUint(t.Revision, 10))}, client.TenantUpdate{Name: &v}, map[int]outcome{200: done, 404: absent, 412: differs})
}

func (w *worker) write(ctx context.Context) {
	o, v := w.object(), w.value()
	w.ask(ctx, input{verb: write, object: o, value: v}, request{method: http.MethodPatch, path: "/v1/tenants/" + o, match: "*"},
		client.TenantUpdate{Name: &v}, map[int]outcome{200: done, 404: absent, 412: differs})
}

func (w *worker) remove(ctx context.Context) {
	o := w.object()
	w.ask(ctx, input{verb: remove, object: o}, request{method: http.MethodDelete, path: "/v1/tenants/" + o, match: "*"}, nil, map[int]outcome{200: done, 404: absent})
}

// take tries to enrol a machine with the join token that everyone tries.
func (w *worker) take(ctx context.Context) {
	secret, gate, err := w.gate(ctx)
	if err != nil || secret == "" {
		return
	}
	id := strings.ReplaceAll(strings.TrimSuffix(w.value(), "."), ".", "-")
	in := input{verb: take, object: fmt.Sprintf("gate %d", gate), value: id}
	called := w.history.tick()
	to := w.member()
	a, err := w.call(ctx, w.rng, to, "", request{method: http.MethodPost, path: "/v1/edge/enrol"}, fleet.EnrolRequest{
		Token: secret, Node: fleet.NodeID(id), CSR: w.kit.csr, HPKE: w.kit.hpke, Sent: time.Now(),
		Addresses: []netip.Addr{w.address()},
	})
	if errors.Is(err, errNobody) {
		return
	}
	out := output{outcome: unknown}
	switch {
	case err == nil && a.without():
		out.outcome = refused
	case err != nil || a.status > http.StatusInternalServerError:
	case a.status == http.StatusCreated:
		out.outcome = done
	case a.status == http.StatusForbidden && strings.Contains(string(a.body), "used already"):
		out.outcome = differs
	case a.status == http.StatusForbidden && strings.Contains(string(a.body), "expired"),
		strings.Contains(string(a.body), "clock is off"), a.status == http.StatusTooManyRequests:
		out.outcome = refused // the member's clock is off, in this history
	default:
		w.history.odd("enrol at %s: %d %.300s", to, a.status, a.body)
	}
	w.history.add(w.number, called, in, out)
	w.tell(in, out, a, 0)
}

// address is that of the machine last named, and of no other.
func (w *worker) address() netip.Addr {
	b := [16]byte{0: 0xfd, 15: 1}
	binary.BigEndian.PutUint64(b[1:], w.seed)
	binary.BigEndian.PutUint16(b[9:], uint16(w.number)) //nolint:gosec // a small number
	binary.BigEndian.PutUint32(b[11:], uint32(w.made))  //nolint:gosec // a small number
	return netip.AddrFrom16(b)
}

// gate is the join token that everyone tries; after a while it is another.
func (w *worker) gate(ctx context.Context) (secret string, number int, err error) {
	w.gates.mu.Lock()
	w.gates.tries++
	secret, number = w.gates.secret, w.gates.number
	fresh := w.gates.tries%12 == 1
	w.gates.mu.Unlock()
	if !fresh {
		return secret, number, nil
	}
	a, err := w.call(ctx, w.rng, w.member(), w.operator, request{method: http.MethodPost, path: "/v1/join-tokens"}, client.JoinTokenCreate{Kind: fleet.JoinNode})
	if err != nil || a.status != http.StatusCreated {
		return secret, number, err
	}
	var made client.JoinTokenCreated
	if err := json.Unmarshal(a.body, &made); err != nil {
		return "", 0, err
	}
	w.ledger.Acknowledged(Mutation{RequestID: a.requestID, Object: "join_token/" + string(made.ID), Mark: string(made.ID), Revision: made.Revision})
	w.gates.mu.Lock()
	defer w.gates.mu.Unlock()
	w.gates.number++
	w.gates.secret = made.Secret
	return made.Secret, w.gates.number, nil
}
