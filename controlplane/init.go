package controlplane

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// initTimeout bounds the first election and commit, which involve this member only.
const initTimeout = 30 * time.Second

// Initialized is what init made, to be shown once.
type Initialized struct {
	Cluster fleet.ClusterID
	// Token is the first operator token; TokenFile holds it too, mode 0600.
	Token, TokenFile string
	// KEKFile holds the key-encryption key that the other members need; RecoveryFile the recovery key to keep offline.
	KEKFile, RecoveryFile string
	// CACert is the API's certificate authority, for fleetctl.
	CACert string
}

// Init makes a cluster of one member in the configured data directory: CAs, keys, the first operator token. It refuses
// a directory that is not empty, and leaves nothing behind when it fails.
func Init(ctx context.Context, c Config) (out Initialized, err error) {
	if c.ClusterZone == "" {
		return out, fleet.Invalid("cluster_zone", "init needs cluster_zone: the DNS zone that will be delegated to the members, such as edge.example.net")
	}
	if c.KEKFile == "" {
		return out, fleet.Invalid("kek_file", "init needs kek_file: where the key-encryption key is, or will be made")
	}
	existed, err := c.requireEmpty("init")
	if err != nil {
		return out, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.discard(existed))
		}
	}()
	kek, err := c.makeKEK()
	if err != nil {
		return out, err
	}
	id := make([]byte, 5)
	if _, err := rand.Read(id); err != nil {
		return out, fmt.Errorf("make cluster id: %w", err)
	}
	recoveryPub, recovery, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return out, fmt.Errorf("make recovery key: %w", err)
	}
	now := time.Now()
	rec, err := keys.Generate(fleet.ClusterID("c-"+hex.EncodeToString(id)), c.ClusterZone, kek, recoveryPub, now)
	if err != nil {
		return out, err
	}
	if err := c.issueOwn(rec, kek, now); err != nil {
		return out, err
	}
	m := membership{Cluster: rec.ID, Member: c.Member, Zone: rec.Zone, MemberCA: rec.MemberCA, NodeCA: rec.NodeCA, APICA: rec.APICA}
	token, err := c.bootstrap(ctx, m, rec)
	if err != nil {
		return out, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(recovery)
	if err != nil {
		return out, fmt.Errorf("encode recovery key: %w", err)
	}
	if err := writeFile(c.path(fileRecovery), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return out, err
	}
	if err := writeFile(c.path(fileOperator), []byte(token+"\n"), 0o600); err != nil {
		return out, err
	}
	out = Initialized{Cluster: rec.ID, Token: token, TokenFile: c.path(fileOperator), KEKFile: c.KEKFile, RecoveryFile: c.path(fileRecovery), CACert: c.path("api-ca.crt")}
	return out, c.save(m)
}

// makeKEK loads the KEK that was given, or makes one.
func (c Config) makeKEK() (*keyring.KEK, error) {
	kek, err := c.kek()
	if err != nil || kek != nil {
		return kek, err
	}
	if kek, err = keyring.NewKEK(); err != nil {
		return nil, err
	}
	return kek, kek.Save(c.KEKFile)
}

// issueOwn signs this member's own certificates.
func (c Config) issueOwn(rec fleet.ClusterRecord, kek *keyring.KEK, now time.Time) error {
	k, err := keys.Open(rec, kek)
	if err != nil {
		return err
	}
	return errors.Join(c.issueMember(rec.ID, "", k, now), c.issueAPI(k, now))
}

// bootstrap starts Raft with this member alone and commits the first command.
func (c Config) bootstrap(ctx context.Context, m membership, rec fleet.ClusterRecord) (token string, err error) {
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	t, err := c.trust(m)
	if err != nil {
		return "", err
	}
	store := state.New()
	node, err := c.openConsensus(t, mtls.MembersOnly(t.Cluster), fsm.New(store), observability.Discard())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, node.Close(context.WithoutCancel(ctx))) }()
	if err := node.Bootstrap(); err != nil {
		return "", err
	}
	tok, text := api.NewToken(fleet.Token{
		Role: fleet.RoleOperator, Comment: "made by init", Owner: fleet.OwnerUser, MadeBy: fleet.OwnerUser,
	})
	cmd := command.ClusterInit{Cluster: rec, Member: c.advertised(observability.Version), Token: tok}
	owner := command.UserPut{Put: command.Put{Create: true}, ID: fleet.OwnerUser, Activated: true, Spec: fleet.UserSpec{
		Name: "first administrator", Roles: []fleet.RoleName{fleet.RoleAdministrator},
	}}
	done, stop := context.WithCancel(ctx)
	defer stop()
	err = node.RunLeader(done, func(ctx context.Context) error {
		defer stop()
		p, h := proposer{node: node}, leader.Header("init", time.Now().UTC())
		if _, err := p.Propose(ctx, h, cmd); err != nil {
			return err
		}
		_, err := p.Propose(ctx, h, owner)
		return err
	})
	if err == nil && ctx.Err() != nil {
		err = fleet.NewError(fleet.ErrTimeout, "", "the first election did not end within %s: is %s reachable from this host?", initTimeout, c.advertised("").Raft)
	}
	return text, err
}
