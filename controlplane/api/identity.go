package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net"
	"net/http"
	"strings"
	"unicode"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// caller is who called: at most one of token, node and member is set.
type caller struct {
	token     fleet.Token
	node      fleet.NodeID
	member    fleet.MemberID
	source    string
	requestID string
	// traceID is the trace that the request belongs to (W3C Trace Context).
	traceID string
	// reason is what the caller gave for the audit log.
	reason string
	// forwarded: another member passed the request on.
	forwarded bool
	// unknown: a token that this member does not accept, or a node that it does not know; the leader may know more.
	unknown bool
	// tried is the token that was shown and is not accepted here.
	tried    fleet.TokenID
	rejected bool
	// approval is what the request carries out, approvedBy the second person.
	approval   fleet.ApprovalID
	approvedBy fleet.UserID
	// request is the request with its body, to be stored if it needs a second person.
	request *http.Request
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// name is the caller in the audit log.
func (c caller) name() string {
	if c.token.ID != "" {
		return "token/" + string(c.token.ID)
	}
	if id := c.identity(); id != "" {
		return id
	}
	return "anonymous"
}

// identity is who the certificate says.
func (c caller) identity() string {
	switch {
	case c.node != "":
		return "node/" + string(c.node)
	case c.member != "":
		return "member/" + string(c.member)
	}
	return ""
}

func (c caller) anonymous() bool { return c.name() == "anonymous" && !c.unknown }

// identify fills in who calls. An unknown token and an unknown certificate are errors; none at all is not.
func (a *API) identify(c *caller, r *http.Request) error {
	c.source, _, _ = net.SplitHostPort(r.RemoteAddr)
	c.reason = reason(r.Header.Get(headerReason))
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		if err := a.fromCertificate(c, r); err != nil {
			return err
		}
	}
	auth := r.Header.Get("Authorization")
	if auth == "" {
		return nil
	}
	return a.authenticate(c, auth)
}

func (a *API) fromCertificate(c *caller, r *http.Request) error {
	id, err := mtls.PeerIdentity(*r.TLS)
	if err != nil {
		return fleet.NewError(fleet.ErrUnauthenticated, "certificate", "the client certificate is not of this cluster")
	}
	v := a.view()
	cluster, _ := v.Cluster()
	leaf := r.TLS.VerifiedChains[0][0]
	switch {
	case id.Cluster != cluster.ID:
		return fleet.NewError(fleet.ErrUnauthenticated, "certificate", "the client certificate is of another cluster")
	case a.o.Now().After(leaf.NotAfter): // a connection may outlive the certificate that it started with
		return fleet.NewError(fleet.ErrUnauthenticated, "certificate", "the client certificate ended: connect again with a new one")
	case id.Node != "" && !signedBy(r.TLS.VerifiedChains, cluster.NodeCA), id.Member != "" && !signedBy(r.TLS.VerifiedChains, cluster.MemberCA):
		return fleet.NewError(fleet.ErrUnauthenticated, "certificate", "the client certificate is of another authority than its identity needs")
	}
	c.node, c.member = id.Node, id.Member
	passedOn := c.member != "" && r.Header.Get(headerForwarded) != ""
	if _, removed := v.RemovedMember(id.Member, id.Join); removed {
		if passedOn { // whoever sent it did nothing wrong
			return fleet.NewError(fleet.ErrUnavailable, "member", "member %s, which passed this request on, was removed from the cluster: ask another member", id.Member)
		}
		return fleet.NewError(fleet.ErrDenied, "certificate", "member %s was removed from the cluster: join it again with a new token and an empty data directory", id.Member)
	}
	if passedOn {
		if _, known := v.Member(c.member); !known {
			return fleet.NewError(fleet.ErrUnavailable, "member", "member %s, which passed this request on, is not known here (any more): ask another member", c.member)
		}
		c.believe(r.Header)
	}
	return a.checkNode(c)
}

// believe takes over what a member says of the request that it passes on: the source, the request id, and the identity
// that it verified.
func (c *caller) believe(h http.Header) {
	c.forwarded, c.source, c.member = true, h.Get(headerSource), ""
	if v := h.Get(headerRequestID); len(v) == requestIDLength {
		c.requestID = v
	}
	switch kind, who, _ := strings.Cut(h.Get(headerIdentity), "/"); kind {
	case "node":
		c.node = fleet.NodeID(who)
	case "member":
		c.member = fleet.MemberID(who)
	}
}

func (a *API) checkNode(c *caller) error {
	if c.node == "" {
		return nil
	}
	n, ok := a.view().Node(c.node)
	if ok {
		return n.Refusal()
	}
	c.unknown = true
	return fleet.NewError(fleet.ErrDenied, "node", "node %s is not part of this fleet (any more): enrol the machine again with a new join token", c.node)
}

// maxReason bounds the reason that a caller gives, in bytes.
const maxReason = fleet.MaxCommentLength

// reason is what the audit log keeps of a caller's reason: printable, and not too long.
func reason(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, ""))
	return strings.ToValidUTF8(text[:min(len(text), maxReason)], "")
}

// signedBy reports whether a chain ends at the authority: a certificate of one kind is never good for another.
func signedBy(chains [][]*x509.Certificate, ca string) bool {
	block, _ := pem.Decode([]byte(ca))
	for _, chain := range chains {
		if block != nil && bytes.Equal(chain[len(chain)-1].Raw, block.Bytes) {
			return true
		}
	}
	return false
}

// authenticate fills in the token that the header carries. All failures read and take alike, whatever is known of the
// token; a follower leaves them to the leader, which may know a newer token.
func (a *API) authenticate(c *caller, header string) error {
	now := a.o.Now()
	if err := a.limiter.check(c.source, now); err != nil {
		return err
	}
	value, _ := strings.CutPrefix(header, "Bearer ")
	id, secret, err := fleet.ParseToken(value)
	v := a.view()
	rec, ok := v.Token(id)
	if matches(rec.Hash, secret) && ok && err == nil && usable(v, rec.Token, now) {
		c.token = rec.Token
		a.uses.saw(id, now)
		return nil
	}
	c.rejected, c.unknown, c.tried = true, err == nil, id
	return fleet.NewError(fleet.ErrUnauthenticated, "token", "the API token is not known, or not any more: check FLEETCTL_TOKEN, or ask for a new token")
}

// rejected counts a failed authentication, and returns err, or that there were too many.
func (a *API) rejected(c *caller, err error) error {
	if !c.rejected {
		return err
	}
	return cmp.Or(a.limiter.failed(c.source, c.tried, a.o.Now()), err)
}

// matches compares a secret with a stored hash, in the same time whether there is one or not.
func matches(hash []byte, secret string) bool {
	if len(hash) == 0 {
		hash = make([]byte, fleet.HashBytes)
	}
	sum := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(hash, sum[:]) == 1
}

// newSecret makes 256 random bits for a token, and their stored hash.
func newSecret() (secret string, hash []byte) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	secret = base64.RawURLEncoding.EncodeToString(b)
	sum := sha256.Sum256([]byte(secret))
	return secret, sum[:]
}

// newID makes a random identifier with a prefix.
func newID(prefix string) string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return prefix + "-" + hex.EncodeToString(b)
}

const requestIDLength = 32

func newRequestID() string {
	b := make([]byte, requestIDLength/2)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
