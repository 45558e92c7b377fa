package faulttest

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
)

// CutRestore kills the leader while it restores a snapshot, taken a moment before: whole or not at all, nothing may be
// missing afterwards. It comes before the clients begin, of which a restore would take back what they did.
const CutRestore Fault = "kill while a snapshot is restored"

// cutRestore carries out CutRestore. The snapshot is uploaded to one that follows, so that the answer is not cut, but for
// what comes from the leader.
func (p *Processes) cutRestore(ctx context.Context, s Step) error {
	if err := p.await(ctx, "all members have one state", func(ctx context.Context) error { _, err := p.agreed(ctx); return err }); err != nil {
		return err
	}
	leader := p.leader(ctx, p.members[p.ids[0]])
	follower := p.others(leader.id)[s.Victim%2]
	before, err := p.status(ctx, follower.id)
	if err != nil {
		return err
	}
	content, err := p.save(ctx, leader.id)
	if err != nil {
		return err
	}
	next := before.Incarnation + 1
	var restoring sync.WaitGroup
	var a answer
	var failed error
	restoring.Go(func() { a, failed = p.restore(ctx, follower.id, content, next, p.cluster.HeadKeys) })
	_ = sleep(ctx, s.For%cutRestoreWithin)
	p.down(leader)
	restoring.Wait()
	p.note("%s: killed after %s; the restore was answered with %d, %v", leader.id, s.For%cutRestoreWithin, a.status, failed)
	if err := p.up(ctx, leader); err != nil {
		return err
	}
	// A read of who leads now: a restore that is in some member's log only cannot come after it.
	if _, _, err := p.anyone(ctx, "", request{method: http.MethodGet, path: "/v1/cluster/incarnations"}, nil); err != nil {
		return err
	}
	return p.await(ctx, "one incarnation after a restore that was cut", func(ctx context.Context) error {
		if _, err := p.agreed(ctx); err != nil {
			return err
		}
		after, err := p.status(ctx, leader.id)
		if got := after.Incarnation; err == nil && (got != next && got != next-1 || a.status == http.StatusCreated && got != next) {
			err = fmt.Errorf("%w: incarnation %d after %d, and the restore was answered with %d", fleet.ErrCorrupt, got, next-1, a.status)
		}
		if err == nil {
			p.did(CutRestore)
			p.note("%s: incarnation %d after %d", leader.id, after.Incarnation, next-1)
		}
		return err
	})
}

// cutRestoreWithin is within how long after its begin a restore is cut; it takes about as long.
const cutRestoreWithin = 80 * time.Millisecond

// save downloads a snapshot from a member.
func (p *Processes) save(ctx context.Context, from fleet.MemberID) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	a, err := p.send(ctx, from, p.operator, request{method: http.MethodGet, path: "/v1/cluster/snapshot"}, http.Header{}, nil)
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("%w: %s saves no snapshot: %d %.300s", fleet.ErrUnavailable, from, a.status, a.body)
	}
	return a.body, err
}

// restore uploads a snapshot, with a statement that the recovery key signed.
func (p *Processes) restore(ctx context.Context, to fleet.MemberID, content []byte, incarnation uint64, headKeys [][]byte) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	signed, err := head.SignIncarnation(head.Incarnation{Cluster: p.cluster.ID, Number: incarnation, HeadKeys: headKeys, Time: time.Now()}, p.recovery)
	if err != nil {
		return answer{}, err
	}
	text, err := json.Marshal(signed)
	if err != nil {
		return answer{}, err
	}
	sum := sha256.Sum256(content)
	return p.send(ctx, to, p.operator, request{method: http.MethodPost, path: "/v1/cluster/restores"}, http.Header{
		"Content-Type": {snapshot.MediaType}, "Content-Digest": {"sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"},
		"Edgefleet-Statement": {base64.StdEncoding.EncodeToString(text)},
	}, content)
}

// restoreInVain makes the log longer by all that the state holds: a snapshot is uploaded to be restored, with a statement
// for keys that are not the cluster's, so that it is refused in the end. Members that are away, or wait for another
// leader, are left out.
func (p *Processes) restoreInVain(ctx context.Context) error {
	foreign, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	for _, id := range p.ids {
		content, err := p.save(ctx, id)
		if err != nil {
			continue
		}
		a, err := p.restore(ctx, id, content, 1<<30, [][]byte{foreign})
		switch {
		case err != nil || a.status >= http.StatusInternalServerError:
		case a.status == http.StatusConflict:
			return nil
		default:
			return fmt.Errorf("%w: a restore that nobody may make: %s answers %d %.300s", fleet.ErrConflict, id, a.status, a.body)
		}
	}
	return nil
}

// readRecovery reads the recovery key, which stays with the people who initialized the cluster.
func readRecovery(file string) (ed25519.PrivateKey, error) {
	b, err := os.ReadFile(file) //nolint:gosec // below a directory of ours
	if err != nil {
		return nil, fmt.Errorf("read the recovery key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fleet.Invalid("recovery-key", "%s holds no PEM block", filepath.Base(file))
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse the recovery key: %w", err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fleet.Invalid("recovery-key", "it is a %T", key)
	}
	return private, nil
}
