package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
)

// stageBytes is how much of a snapshot goes into one log entry.
const stageBytes = 2 << 20

func (a *API) registerSnapshots() {
	a.registerSave()
	a.registerRestore()
	handle(a, op("incarnation-list", http.MethodGet, "/v1/cluster/incarnations", "Incarnations after the first: restores, recoveries, orders", operators, fleet.PermClusterRead, fleet.DutyContinuity), a.incarnationList)
	handle(a, op("incarnation-start", http.MethodPost, "/v1/cluster/incarnations", "Begin a new incarnation with a statement that the recovery key signed", operators, fleet.PermClusterOperate, fleet.DutyContinuity).changes(command.TypeIncarnationStart), a.incarnationStart)
}

func (a *API) registerSave() {
	op := op("snapshot-save", http.MethodGet, "/v1/cluster/snapshot", "A snapshot of the whole state, with everything acknowledged before the call; keep it like a secret", operators, fleet.PermClusterOperate, fleet.DutyContinuity)
	handle(a, op, func(ctx context.Context, _ *ReadQuery) (*huma.StreamResponse, error) {
		if err := a.o.Keys.Check(); err != nil {
			return nil, err
		}
		term, _ := a.o.Consensus.Status()
		source := backup.Source{View: a.view(), Term: term, Member: a.o.Member, Keys: a.o.Keys, Now: a.o.Now()}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			_, w := humago.Unwrap(hc)
			w.Header().Set("Content-Type", snapshot.MediaType)
			e, err := backup.Write(downloading{ctx, w, http.NewResponseController(w)}, source)
			if err != nil {
				a.o.Telemetry.Logger.WarnContext(ctx, "snapshot not sent", "request_id", callerOf(ctx).requestID, "err", err)
				panic(http.ErrAbortHandler) // the client must see that it broke off
			}
			a.o.Telemetry.Logger.InfoContext(ctx, "snapshot sent", "request_id", callerOf(ctx).requestID, "actor", callerOf(ctx).name(), "index", e.Index, "bytes", e.Bytes)
		}}, nil
	})
	a.huma.OpenAPI().Paths[op.path].Get.Responses["200"].Content = map[string]*huma.MediaType{snapshot.MediaType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
}

// RestoreInput are the headers of a restore; the body is the snapshot.
type RestoreInput struct {
	Digest    string `header:"Content-Digest" maxLength:"512" doc:"sha-256=:<base64>: of the body (RFC 9530)"`
	Statement string `header:"Edgefleet-Statement" maxLength:"8192" doc:"the signed statement of the new incarnation: JSON in base64"`
}

func (a *API) registerRestore() {
	op := op("snapshot-restore", http.MethodPost, "/v1/cluster/restores", "Go back to the desired state of a snapshot, in a new incarnation", operators, fleet.PermClusterOperate, fleet.DutyContinuity).changes(command.TypeClusterRestore).withoutKey()
	op.upload = snapshot.MaxBytes
	handle(a, op, func(ctx context.Context, in *RestoreInput) (*huma.StreamResponse, error) {
		digest, err := contentDigest(in.Digest)
		if err != nil {
			return nil, err
		}
		statement, err := a.statement(in.Statement)
		if err != nil {
			return nil, err
		}
		approved := carrying(ctx)
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			r, w := humago.Unwrap(hc)
			rec, err := a.restoreBody(ctx, approved, r.Body, digest, statement)
			if err != nil {
				a.o.Telemetry.Logger.WarnContext(ctx, "restore refused", "request_id", callerOf(ctx).requestID, "err", err)
				writeProblem(w, problem(err, callerOf(ctx)))
				return
			}
			a.o.Telemetry.Logger.WarnContext(ctx, "state restored from a snapshot", "request_id", callerOf(ctx).requestID, "actor", callerOf(ctx).name(), "incarnation", rec.Number)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			_ = json.NewEncoder(w).Encode(rec) // a client that went away finds the record in the list
		}}, nil
	})
	doc := a.huma.OpenAPI()
	post := doc.Paths[op.path].Post
	post.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{snapshot.MediaType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}
	schema := doc.Components.Schemas.Schema(reflect.TypeFor[fleet.IncarnationRecord](), true, "IncarnationRecord")
	post.Responses["201"] = &huma.Response{Description: http.StatusText(http.StatusCreated), Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
	delete(post.Responses, "200")
	delete(post.Responses, "204")
}

// statement decodes a statement and holds it against the cluster, before a snapshot is uploaded for nothing.
func (a *API) statement(text string) (fleet.SignedIncarnation, error) {
	var s fleet.SignedIncarnation
	b, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		err = fleet.DecodeStrict(b, &s)
	}
	if err != nil || text == "" {
		return s, fleet.Invalid("statement", "a restore needs the statement of the new incarnation, signed by the recovery key (header Edgefleet-Statement): fleetctl makes it with --recovery-key")
	}
	c, _ := a.view().Cluster()
	_, err = head.VerifyIncarnation(s, c.RecoveryKey, c.ID)
	return s, err
}

// restoreBody checks a snapshot whole, on the side, before a byte of it is proposed. The restore itself is proposed in
// approved, which may carry an approval out.
func (a *API) restoreBody(ctx, approved context.Context, body io.Reader, digest []byte, s fleet.SignedIncarnation) (fleet.IncarnationRecord, error) {
	var none fleet.IncarnationRecord
	if err := a.o.Keys.Check(); err != nil {
		return none, err
	}
	f, err := a.spool(body, digest)
	if err != nil {
		return none, err
	}
	defer discard(f)
	loaded, err := backup.Load(f, a.o.Keys.Sealer)
	if errors.Is(err, fleet.ErrCorrupt) { // which is the caller's file, and no fault of this member
		err = fleet.Invalid("snapshot", "%v", err)
	}
	if err != nil {
		return none, err
	}
	if c, _ := a.view().Cluster(); loaded.Envelope.Cluster != c.ID {
		return none, fleet.NewError(fleet.ErrConflict, "snapshot", "the snapshot is of cluster %s, this is %s: a cluster is brought back from it on an empty host, with 'controlplane init --from-snapshot'", loaded.Envelope.Cluster, c.ID)
	}
	if err := a.restorable(ctx, loaded.State.Read()); err != nil {
		return none, err
	}
	return a.stageAndRestore(ctx, approved, f, loaded.Envelope, s)
}

func (a *API) stageAndRestore(ctx, approved context.Context, f *os.File, e snapshot.Envelope, s fleet.SignedIncarnation) (rec fleet.IncarnationRecord, err error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return rec, err
	}
	id := newID("restore")
	defer func() {
		if err != nil { // nothing was restored; the parts are only in the way, and go with the next restore at the latest
			ours := context.WithValue(context.WithoutCancel(ctx), callerKey{}, caller{requestID: callerOf(ctx).requestID}) // the token may have ended
			_, dropped := propose[any](ours, a, command.SnapshotStage{Restore: id})
			if dropped != nil {
				a.o.Telemetry.Logger.WarnContext(ctx, "parts of a restore are still staged", "restore", id, "err", dropped)
			}
		}
	}()
	part := make([]byte, stageBytes)
	parts := uint64(0)
	for {
		n, err := io.ReadFull(f, part)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return rec, err
		}
		if _, err := propose[any](ctx, a, command.SnapshotStage{Restore: id, Seq: parts, Data: part[:n]}); err != nil {
			return rec, err
		}
		parts++
	}
	return propose[fleet.IncarnationRecord](approved, a, command.ClusterRestore{Restore: id, Parts: parts, SHA256: e.SHA256, Statement: s})
}

func (a *API) incarnationList(_ context.Context, _ *ReadQuery) (*Body[client.Page[fleet.IncarnationRecord]], error) {
	items := a.view().Incarnations()
	if items == nil {
		items = []fleet.IncarnationRecord{}
	}
	return &Body[client.Page[fleet.IncarnationRecord]]{Body: client.Page[fleet.IncarnationRecord]{Items: items}}, nil
}

func (a *API) incarnationStart(ctx context.Context, in *Input[client.IncarnationStart]) (*Body[fleet.IncarnationRecord], error) {
	c, _ := a.view().Cluster()
	i, err := head.VerifyIncarnation(in.Body.Statement, c.RecoveryKey, c.ID)
	if err != nil {
		return nil, err
	}
	rec, err := propose[fleet.IncarnationRecord](ctx, a, command.IncarnationStart{Number: i.Number, Cause: fleet.CauseOrder, Statement: in.Body.Statement})
	return &Body[fleet.IncarnationRecord]{Body: rec}, err
}
