package api

import (
	"context"
	"crypto"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgefleet/edgefleet/controlplane/blobs"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

const typeBlob = "application/octet-stream"

// nodeLife is how long a node's certificate lasts.
const nodeLife = 24 * time.Hour

func (a *API) registerEdge() {
	handle(a, op("edge-enrol", http.MethodPost, "/v1/edge/enrol", "Exchange a node join token for an identity", public, fleet.PermPublic, fleet.DutyOperating).changes(command.TypeNodeEnrol).answering(http.StatusCreated).ofTheCrowd(), a.enrol)
	handle(a, op("edge-renew", http.MethodPost, "/v1/edge/renew", "A node renews its certificate; its last key signs", public, fleet.PermPublic, fleet.DutyOperating).changes(command.TypeNodeRotate).answering(http.StatusOK).ofTheCrowd(), a.renew)
	handle(a, op("edge-poll", http.MethodPost, "/v1/edge/poll", "A node reports and asks for its heads", nodesOnly, fleet.PermNode, fleet.DutyRules).leaderFirst().answering(http.StatusOK).ofTheCrowd(), a.poll)
	handle(a, op("edge-blob", http.MethodGet, "/v1/edge/blobs/{digest}", "A node fetches a blob", nodesOnly, fleet.PermNode, fleet.DutyRules).locally().ofTheCrowd(), a.blob)
	a.describeBlob("/v1/edge/blobs/{digest}")
}

// describeBlob says in the OpenAPI document that blobs are bytes, and may be asked for in part.
func (a *API) describeBlob(path string) {
	responses := a.huma.OpenAPI().Paths[path].Get.Responses
	content := map[string]*huma.MediaType{typeBlob: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	responses["200"].Content = content
	responses["206"] = &huma.Response{Description: http.StatusText(http.StatusPartialContent), Content: content, Headers: responses["200"].Headers}
	responses["416"] = &huma.Response{Description: http.StatusText(http.StatusRequestedRangeNotSatisfiable), Content: responses["404"].Content}
}

func (a *API) enrol(ctx context.Context, in *Input[fleet.EnrolRequest]) (*Body[fleet.EnrolResponse], error) {
	c := callerOf(ctx)
	b := in.Body
	rec, err := a.checkJoinToken(b.Token, nodeTokenPrefix, fleet.JoinNode, c.source)
	if err != nil {
		return nil, err
	}
	if err := a.checkClock(b.Sent); err != nil {
		return nil, err
	}
	if err := a.o.Keys.Check(); err != nil {
		return nil, err
	}
	pub, err := mtls.ParseCSR([]byte(b.CSR))
	if err != nil {
		return nil, err
	}
	if err := keyring.ValidateHPKEKey(b.HPKE); err != nil {
		return nil, err
	}
	id := orDefault(b.Node, fleet.NodeID(newID("node")))
	if err := fleet.ValidateID("node", id); err != nil {
		return nil, err
	}
	cert, spki, notAfter, err := a.signNode(id, pub)
	if err != nil {
		return nil, err
	}
	n, err := propose[fleet.Node](ctx, a, command.NodeEnrol{
		Token: rec.ID, ID: id, Spec: fleet.NodeSpec{Addresses: b.Addresses},
		Identity: fleet.NodeIdentity{SPKI: spki, HPKE: b.HPKE, NotAfter: notAfter},
	})
	if err != nil {
		return nil, err
	}
	return &Body[fleet.EnrolResponse]{Body: a.identity(n, cert)}, nil
}

func (a *API) signNode(id fleet.NodeID, pub crypto.PublicKey) (cert, spki string, notAfter time.Time, err error) {
	cluster, _ := a.view().Cluster()
	now := a.o.Now().UTC()
	pem, err := a.o.Keys.NodeCA.SignNode(cluster.ID, id, pub, now)
	if err != nil {
		return "", "", time.Time{}, err
	}
	spki, err = mtls.SPKI(pub)
	return string(pem), spki, now.Add(nodeLife), err
}

func (a *API) identity(n fleet.Node, cert string) fleet.EnrolResponse {
	v := a.view()
	c, _ := v.Cluster()
	return fleet.EnrolResponse{
		Node: n.ID, Group: n.Spec.Group, Region: n.Spec.Region, Cluster: c.ID, Incarnation: c.Incarnation, Certificate: cert,
		MemberCA: c.MemberCA, APICA: c.APICA, HeadKeys: c.HeadKeys, RecoveryKey: c.RecoveryKey, Members: blobs.Endpoints(v),
	}
}

func (a *API) poll(ctx context.Context, in *Input[fleet.Report]) (*Body[fleet.HeadSet], error) {
	id := callerOf(ctx).node
	if in.Body.Node != id {
		return nil, fleet.NewError(fleet.ErrDenied, "node", "node %s reports for itself only", id)
	}
	if err := in.Body.Validate(); err != nil {
		return nil, err
	}
	a.o.Report(in.Body)
	if a.o.Library == nil {
		return nil, a.o.Keys.Check()
	}
	set, err := a.o.Library.HeadSet(id)
	return &Body[fleet.HeadSet]{Body: set}, err
}

// BlobInput names a blob; Range asks for its tail.
type BlobInput struct {
	Digest string `path:"digest" maxLength:"71" doc:"sha256:<64 hex digits>"`
	Range  string `header:"Range" doc:"bytes=N- resumes at offset N"`
}

// BlobOutput is a blob or its tail.
type BlobOutput struct {
	Status       int
	ContentType  string `header:"Content-Type"`
	AcceptRanges string `header:"Accept-Ranges"`
	ContentRange string `header:"Content-Range"`
	Body         []byte
}

func (a *API) blob(_ context.Context, in *BlobInput) (*BlobOutput, error) {
	d := fleet.Digest(in.Digest)
	if err := d.Validate(); err != nil {
		return nil, err
	}
	if a.o.Library == nil {
		return nil, a.o.Keys.Check()
	}
	b, err := a.o.Library.Blob(d)
	if err != nil {
		return nil, err
	}
	out := &BlobOutput{Status: http.StatusOK, ContentType: typeBlob, AcceptRanges: "bytes", Body: b}
	offset, ok := parseRange(in.Range)
	switch {
	case !ok: // RFC 9110, section 14.2: a range that is not understood is ignored
	case offset >= len(b):
		p := newProblem(http.StatusRequestedRangeNotSatisfiable, "invalid", "range", fmt.Sprintf("range %.64q is not within the %d bytes of the blob", in.Range, len(b)))
		p.header.Set("Content-Range", fmt.Sprintf("bytes */%d", len(b)))
		return nil, p
	default:
		out.Status, out.Body = http.StatusPartialContent, b[offset:]
		out.ContentRange = fmt.Sprintf("bytes %d-%d/%d", offset, len(b)-1, len(b))
	}
	return out, nil
}

// parseRange reads "bytes=N-".
func parseRange(h string) (offset int, ok bool) {
	s, ok := strings.CutPrefix(h, "bytes=")
	s, open := strings.CutSuffix(s, "-")
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), ok && open && err == nil
}
