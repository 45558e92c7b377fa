package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// KEKProvider is where the key-encryption key of a member comes from: the file or systemd credential that kek_file names, or
// a key management service, which unwraps the key that it keeps for the cluster.
type KEKProvider interface {
	// Load returns the key, or an error that holds none of it. It is called at the start and now and then, never twice at one
	// time, and its answer counts if it comes before ctx ends. fleet.ErrInvalid means that what is there is no key, which
	// waiting does not cure; every other error, that the provider is away or refuses, and may be asked again.
	Load(ctx context.Context) (*keyring.KEK, error)
	// String names the provider for people: "kek_file /etc/edgefleet/kek".
	String() string
}

const (
	// kekTimeout is how long a provider may take to answer.
	kekTimeout = 5 * time.Second
	// kekLook is how often it is asked.
	kekLook = 5 * time.Second
)

// kekFile is a provider that reads a file.
type kekFile string

// Load reads the file. One that hangs, as on a file system that is away, is left behind: that is one goroutine, since
// patient asks nobody twice.
func (f kekFile) Load(context.Context) (*keyring.KEK, error) { return keyring.LoadKEK(string(f)) }

func (f kekFile) String() string { return "kek_file " + string(f) }

// kekCredential is a provider that reads a credential of systemd, which is there for as long as the service runs.
type kekCredential struct{ kekFile }

func (c kekCredential) String() string {
	return "kek_file " + string(c.kekFile) + " (the systemd credential " + filepath.Base(string(c.kekFile)) + ": LoadCredential in the service's unit says which file it is read from, at the service's start)"
}

// provider is where kek_file says that the key is; nil without it.
func (c Config) provider() KEKProvider {
	if c.KEKFile == "" {
		return nil
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && filepath.Dir(c.KEKFile) == filepath.Clean(dir) {
		return kekCredential{kekFile(c.KEKFile)}
	}
	return kekFile(c.KEKFile)
}

// patient asks a provider, for as long as an answer may take. A provider that has not answered the last time is not asked
// again until it does.
type patient struct {
	provider KEKProvider
	timeout  time.Duration
	// free holds a token while nobody waits for the provider.
	free chan struct{}
}

func newPatient(p KEKProvider, timeout time.Duration) *patient {
	free := make(chan struct{}, 1)
	free <- struct{}{}
	return &patient{p, timeout, free}
}

func (p *patient) load(ctx context.Context) (*keyring.KEK, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	type answer struct {
		kek *keyring.KEK
		err error
	}
	late := fleet.NewError(fleet.ErrTimeout, "kek_file", "%s has not answered within %s", p.provider, p.timeout)
	select {
	case <-p.free:
	case <-ctx.Done():
		return nil, late
	}
	answers := make(chan answer, 1)
	go func() {
		kek, err := p.provider.Load(ctx)
		if err == nil && kek == nil {
			err = fleet.NewError(fleet.ErrUnavailable, "kek_file", "%s gave no key", p.provider)
		}
		answers <- answer{kek, err}
		p.free <- struct{}{}
	}()
	select {
	case a := <-answers:
		return a.kek, a.err
	case <-ctx.Done():
		return nil, late
	}
}

// kekWatch is what is known of a member's key-encryption key and of where it comes from.
type kekWatch struct {
	ask  *patient
	look time.Duration

	mu sync.Mutex
	// problem says what is wrong with the provider now; loaded that the member has the key.
	problem error
	loaded  bool
}

// kekFoundError ends a run of a member without the key, which starts again with it.
type kekFoundError struct{ kek *keyring.KEK }

// Error implements error.
func (kekFoundError) Error() string { return "the key-encryption key is there: starting again with it" }

// measure registers the gauges.
func (w *kekWatch) measure(tel *observability.Telemetry) {
	one := func(when func() bool) func() []observability.Sample {
		return func() []observability.Sample {
			w.mu.Lock()
			defer w.mu.Unlock()
			v := 0.0
			if when() {
				v = 1
			}
			return []observability.Sample{{Value: v}}
		}
	}
	tel.Gauge("edgefleet_kek_loaded", one(func() bool { return w.loaded }))
	tel.Gauge("edgefleet_kek_provider_up", one(func() bool { return w.problem == nil }))
}

// set notes how the provider stands, and reports whether that is news.
func (w *kekWatch) set(problem error, loaded bool) (news bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	news = (problem == nil) != (w.problem == nil) || problem != nil && problem.Error() != w.problem.Error()
	w.problem, w.loaded = problem, loaded
	return news
}

// state is what set was told last.
func (w *kekWatch) state() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.problem
}

// loadKEK asks the provider at the start. What is no key ends the member; one that is away leaves it without.
func (m *member) loadKEK(ctx context.Context) (*keyring.KEK, error) {
	m.watch.measure(m.tel)
	if m.found != nil {
		return m.found, nil
	}
	if m.watch.ask == nil {
		m.without(ctx, fleet.NewError(fleet.ErrSealed, "kek_file", "kek_file is not set: copy the key from another member out of band, set kek_file and restart"))
		return nil, nil
	}
	kek, err := m.watch.ask.load(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, fleet.ErrInvalid):
		return nil, err
	case err != nil:
		m.without(ctx, m.absent(err))
		return nil, nil
	}
	return kek, nil
}

// absent says what is wrong with the provider of a member that has no key, and what to do.
func (m *member) absent(err error) error {
	return fmt.Errorf("%s does not give the key-encryption key (%w): put it right, or copy the key from another member, or from escrow; this member asks again every %s", m.watch.ask.provider, err, m.watch.look)
}

// without says that the member goes on without the key.
func (m *member) without(ctx context.Context, problem error) {
	m.tel.Health.Degrade("kek", problem)
	if m.watch.set(problem, false) {
		m.tel.Logger.WarnContext(ctx, "no key-encryption key: this member votes and serves reads, and neither issues nor seals; see to kek_file", "member", m.c.Member, "err", problem)
	}
}

// watchKEK asks the provider now and then. A member without the key ends its run with kekFoundError when there is one that opens
// the cluster's secrets. One that has it goes on with it, whatever the provider says: what it holds in memory does
// not get worse, and traffic must not depend on the provider. It says what a restart would lead to.
func (m *member) watchKEK(ctx context.Context) error {
	if m.watch.ask == nil {
		return nil
	}
	tick := time.NewTicker(m.watch.look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		kek, err := m.watch.ask.load(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if m.keys != nil {
			m.keeps(ctx, kek, err)
			continue
		}
		if err == nil {
			rec, _ := m.state.Read().Cluster()
			if _, err = keys.Open(rec, kek); err == nil {
				m.tel.Logger.InfoContext(ctx, "the key-encryption key is there: this member starts again with it", "member", m.c.Member, "provider", m.watch.ask.provider.String())
				return kekFoundError{kek}
			}
		}
		m.without(ctx, m.absent(err))
	}
}

// keeps says how the provider stands of a member that has the key.
func (m *member) keeps(ctx context.Context, kek *keyring.KEK, err error) {
	from := m.watch.ask.provider
	cluster, _ := m.state.Read().Cluster()
	switch {
	case err != nil:
		err = fmt.Errorf("%s does not give the key-encryption key any more (%w): put it back, from another member or from escrow; this member signs and seals with what it has in memory, and would not after a restart", from, err)
	case !slices.Contains(kek.Names(), cluster.KEK()):
		err = fleet.NewError(fleet.ErrSealed, "kek_file", "%s does not hold %s any more, which seals in this cluster: put it back, from another member or from escrow; this member has it in memory, and would end after a restart", from, cluster.KEK())
	}
	m.tel.Health.Degrade("kek", err)
	switch news := m.watch.set(err, true); {
	case news && err != nil:
		m.tel.Logger.WarnContext(ctx, "the provider of the key-encryption key is away: do not restart this member", "member", m.c.Member, "err", err)
	case news:
		m.tel.Logger.InfoContext(ctx, "the provider of the key-encryption key is back", "member", m.c.Member, "provider", from.String())
	}
}

// sealedLead hands leadership to a member that has the key-encryption key: without, a leader neither signs nor seals.
func (m *member) sealedLead(ctx context.Context) error {
	tick := time.NewTicker(secretsPause)
	defer tick.Stop()
	for {
		if to, ok := m.unsealed(ctx); ok {
			m.tel.Logger.InfoContext(ctx, "this member leads without the key-encryption key, and hands over", "member", m.c.Member, "to", to)
			if err := m.raft.TransferLeadership(ctx, to); err != nil && ctx.Err() == nil {
				m.tel.Logger.WarnContext(ctx, "leadership not handed over", "to", to, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// unsealed finds a voter that has the key which seals.
func (m *member) unsealed(ctx context.Context) (fleet.MemberID, bool) {
	suffrage, err := m.raft.Suffrage()
	if err != nil {
		return "", false
	}
	v := m.state.Read()
	cluster, _ := v.Cluster()
	for _, other := range v.Members() {
		if other.ID == m.c.Member || suffrage[other.ID] != "voter" {
			continue
		}
		if s, err := m.stats(ctx, other); err == nil && slices.Contains(s.KEKs, cluster.KEK()) {
			return other.ID, true
		}
	}
	return "", false
}
