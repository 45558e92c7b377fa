package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

func (a *API) registerKEK() {
	handle(a, op("kek-show", http.MethodGet, "/v1/cluster/kek", "Which key-encryption key seals, which members have which, and how many secrets wait to be sealed anew", operators, fleet.PermClusterRead, fleet.DutyOperating), a.kekShow)
	handle(a, op("kek-rotate", http.MethodPost, "/v1/cluster/kek/rotate", "Let the newest key-encryption key seal, which every member must have; secrets are sealed anew by and by", operators, fleet.PermClusterOperate, fleet.DutyOperating).changes(command.TypeKEKRotate).answering(http.StatusOK), a.kekRotate)
}

func (a *API) kekShow(ctx context.Context, _ *struct{}) (*Body[client.KEKStatus], error) {
	return &Body[client.KEKStatus]{Body: a.kekStatus(ctx)}, nil
}

// kekStatus asks every member which keys it has loaded.
func (a *API) kekStatus(ctx context.Context) client.KEKStatus {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	v := a.view()
	c, _ := v.Cluster()
	waiting := v.NotSealedBy(c.KEK())
	members := v.Members()
	s := client.KEKStatus{Seals: c.KEK(), Waiting: waiting.Count(), Needed: waiting.Keys(), Members: make([]client.KEKMember, len(members))}
	if s.Needed == nil {
		s.Needed = []string{}
	}
	var asked sync.WaitGroup
	for i, m := range members {
		asked.Go(func() {
			stats, err := a.o.Stats(ctx, m)
			k := client.KEKMember{Member: m.ID, Keys: stats.KEKs}
			switch {
			case err != nil:
				k.Silent, k.Detail = true, err.Error()
			case len(k.Keys) == 0:
				k.Detail = "has no key-encryption key: it votes and serves reads, and neither issues nor seals"
			default:
				k.Detail = lacking(k.Keys, append(slices.Clone(s.Needed), s.Seals))
			}
			s.Members[i] = k
		})
	}
	asked.Wait()
	return s
}

// lacking says which of the keys in use are not among those that a member has.
func lacking(has, used []string) string {
	missing := slices.DeleteFunc(slices.Clone(used), func(name string) bool { return slices.Contains(has, name) })
	if len(missing) == 0 {
		return ""
	}
	return "lacks " + strings.Join(missing, ", ") + ": copy kek_file from another member and restart it"
}

// rotating is a key-encryption key that has several keys.
type rotating interface {
	keyring.Sealer
	Names() []string
	With(name string) keyring.Sealer
}

// kekRotate lets the newest key that this member has seal, if every member has it.
func (a *API) kekRotate(ctx context.Context, _ *struct{}) (*Body[client.KEKStatus], error) {
	if err := a.o.Keys.Check(); err != nil {
		return nil, err
	}
	kek, ok := a.o.Keys.Sealer.(rotating)
	if !ok {
		return nil, fleet.NewError(fleet.ErrConflict, "kek", "the key-encryption key of this cluster is rotated where it is kept")
	}
	names := kek.Names()
	newest := names[len(names)-1]
	s := a.kekStatus(ctx)
	if s.Seals == newest {
		return nil, fleet.NewError(fleet.ErrConflict, "kek", "%s seals already, and member %s, which leads, has loaded no newer key: add one with 'controlplane kek add', copy the file to every member, and restart them", newest, a.o.Member)
	}
	asked, err := holders(s, newest)
	if err != nil {
		return nil, err
	}
	c, _ := a.view().Cluster()
	b := command.KEKRotate{From: s.Seals, To: newest, Members: asked, Secrets: map[fleet.SecretName]fleet.Sealed{}}
	for name, sealed := range c.Secrets {
		if b.Secrets[name], err = resealed(kek, kek.With(newest), sealed, keyring.SecretAAD(c.ID, name)); err != nil {
			return nil, err
		}
	}
	if _, err := propose[any](ctx, a, b); err != nil {
		return nil, err
	}
	return &Body[client.KEKStatus]{Body: a.kekStatus(ctx)}, nil
}

// holders lists the members, if all that open secrets can open what the key of that name seals.
func holders(s client.KEKStatus, name string) ([]fleet.MemberID, error) {
	var all []fleet.MemberID
	var without, silent []string
	for _, m := range s.Members {
		all = append(all, m.Member)
		switch {
		case slices.Contains(m.Keys, name):
		case len(m.Keys) > 0:
			without = append(without, string(m.Member))
		case m.Silent:
			silent = append(silent, string(m.Member))
		}
	}
	if len(without) > 0 {
		return nil, fleet.NewError(fleet.ErrConflict, "kek", "%s is not on every member: %s would open nothing any more; copy kek_file to them and restart them", name, strings.Join(without, ", "))
	}
	if len(silent) > 0 {
		return nil, fleet.NewError(fleet.ErrConflict, "kek", "nobody knows whether %s have %s, for they do not answer: start them, or remove them from the cluster", strings.Join(silent, ", "), name)
	}
	return all, nil
}

// restorable refuses a snapshot that would bring secrets back which some member cannot open.
func (a *API) restorable(ctx context.Context, from *state.View) error {
	c, _ := a.view().Cluster()
	s := a.kekStatus(ctx)
	for _, name := range from.NotSealedBy(c.KEK()).Keys() {
		for _, m := range s.Members {
			if len(m.Keys) > 0 && !slices.Contains(m.Keys, name) {
				return fleet.NewError(fleet.ErrConflict, "kek", "the snapshot holds secrets that %s seals, which member %s does not have: put it back into kek_file of every member, restart them, and restore again", name, m.Member)
			}
		}
	}
	return nil
}

// resealed is what from opens, sealed by to.
func resealed(from, to keyring.Sealer, s fleet.Sealed, aad []byte) (fleet.Sealed, error) {
	plain, err := from.Open(s, aad)
	if err != nil {
		return fleet.Sealed{}, err
	}
	defer clear(plain)
	return to.Seal(plain, aad)
}
