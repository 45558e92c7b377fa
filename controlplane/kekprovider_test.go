package controlplane_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// service stands in for a key management service: it gives the key of a file, refuses, or does not answer.
type service struct {
	file string

	mu      sync.Mutex
	refusal error
	// hang, while it is set, keeps every answer until it is closed.
	hang chan struct{}
	// asked counts the calls, atOnce the most that were under way at one time.
	asked, now, atOnce int
}

func (s *service) String() string { return "the key management service" }

func (s *service) Load(context.Context) (*keyring.KEK, error) {
	s.mu.Lock()
	s.asked++
	s.now++
	s.atOnce = max(s.atOnce, s.now)
	hang, refusal := s.hang, s.refusal
	s.mu.Unlock()
	if hang != nil {
		<-hang // as a service that takes no notice of how long anybody waits
	}
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
	if refusal != nil {
		return nil, refusal
	}
	return keyring.LoadKEK(s.file)
}

// becomes changes how the service answers from now on.
func (s *service) becomes(refusal error, hangs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hang != nil {
		close(s.hang)
	}
	s.refusal, s.hang = refusal, nil
	if hangs {
		s.hang = make(chan struct{})
	}
}

// runFrom runs a member whose key is of a provider, which is asked often.
func (c *cluster) runFrom(cfg controlplane.Config, p controlplane.KEKProvider) *running {
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	r := &running{config: cfg, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- controlplane.RunLooking(ctx, cfg, p, 200*time.Millisecond, c.t.Output()) }()
	c.members = append(c.members, r)
	c.t.Cleanup(func() { r.stop(c.t) })
	return r
}

// admin reads a page of the member's admin listener; what is not there reads as empty.
func (r *running) admin(page string) (status int, body string) {
	res, err := http.Get("http://" + r.config.AdminListen + page)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body) // half an answer is looked at again
	return res.StatusCode, string(b)
}

// stands waits until the member is ready, its gauges have these values, and what it says of its key has the words; with none,
// it says nothing.
func (c *cluster) stands(r *running, loaded, up string, words ...string) {
	c.t.Helper()
	var last string
	defer func() {
		if c.t.Failed() {
			c.t.Logf("the member said %s", last)
		}
	}()
	c.await("the member has loaded "+loaded+", provider up "+up+", "+strings.Join(words, ", "), func() bool {
		status, ready := r.admin("/readyz")
		_, metrics := r.admin("/metrics")
		last = ready
		var health struct {
			Degraded map[string]string `json:"degraded"`
		}
		said := json.Unmarshal([]byte(ready), &health) == nil && (health.Degraded["kek"] == "") == (len(words) == 0)
		for _, w := range words {
			said = said && strings.Contains(health.Degraded["kek"], w)
		}
		return said && status == http.StatusOK && strings.Contains(metrics, "\nedgefleet_kek_loaded "+loaded+"\n") && strings.Contains(metrics, "\nedgefleet_kek_provider_up "+up+"\n")
	})
}

// leads waits until the member leads.
func (c *cluster) leads(i int) {
	c.t.Helper()
	c.await("member "+string(c.members[i].config.Member)+" leads", func() bool {
		s, err := client.Get[client.ClusterStatus](c.t.Context(), c.client(), "/v1/cluster", nil)
		return err == nil && s.Leader == c.members[i].config.Member
	})
}

// handTo hands leadership to a member.
func (c *cluster) handTo(i int) {
	c.t.Helper()
	c.await("leadership is handed over", func() bool {
		return c.client().Do(c.t.Context(), http.MethodPost, "/v1/cluster/transfer-leader", nil, client.LeaderTransfer{To: c.members[i].config.Member}, nil) == nil
	})
}

// seals waits until a request to a member is answered by a new join token, which only a member with the key makes.
func (c *cluster) seals(i int) {
	c.t.Helper()
	c.await("a join token is made through member "+string(c.members[i].config.Member), func() bool {
		_, err := client.Post[client.JoinTokenCreated](c.t.Context(), c.at(i), "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinNode})
		return err == nil
	})
}

func TestAMemberOutlivesTheProviderOfItsKey(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two members")
	}
	t.Parallel()
	c := start(t, 1)
	cfg := newConfig(t, "m2", filepath.Join(t.TempDir(), "nowhere"))
	var tok client.JoinTokenCreated
	c.await("a join token is made", func() (ok bool) {
		var err error
		tok, err = client.Post[client.JoinTokenCreated](t.Context(), c.client(), "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinMember})
		return err == nil
	})
	if _, err := controlplane.Join(t.Context(), cfg, tok.Secret, c.members[0].config.APIListen); err != nil {
		t.Fatal(err)
	}
	kms := &service{file: c.kek, refusal: fleet.NewError(fleet.ErrUnavailable, "kms", "the service answers 503")}
	m2 := c.runFrom(cfg, kms)
	c.await("both members vote", func() bool {
		s, err := client.Get[client.ClusterStatus](t.Context(), c.client(), "/v1/cluster", nil)
		return err == nil && len(s.Members) == 2 && !slices.ContainsFunc(s.Members, func(m client.MemberStatus) bool { return m.Suffrage != "voter" })
	})

	// Away at the start: it votes, without which two members commit nothing, serves reads, and has the other seal.
	c.stands(m2, "0", "0", "the key management service", "the service answers 503", "copy the key from another member", "asks again every 200ms")
	tenant(t, c.at(0), "red")
	c.await("the member reads", func() bool {
		got, err := client.Get[fleet.Tenant](t.Context(), c.at(1), "/v1/tenants/red", nil)
		return err == nil && got.ID == "red"
	})
	c.seals(1)
	c.handTo(1) // which hands it back
	c.seals(1)
	c.leads(0)

	// Slow: nobody waits for it, and it is not asked again meanwhile.
	kms.becomes(nil, true)
	c.stands(m2, "0", "0", "has not answered within 200ms")
	tenant(t, c.at(1), "blue")
	c.seals(1)
	kms.becomes(fleet.NewError(fleet.ErrDenied, "kms", "no permission to decrypt"), false)
	c.stands(m2, "0", "0", "no permission to decrypt")

	// A key that does not open the secrets changes nothing either.
	other, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong")
	if err := other.Save(wrong); err != nil {
		t.Fatal(err)
	}
	right := kms.file
	kms.mu.Lock()
	kms.file = wrong
	kms.mu.Unlock()
	kms.becomes(nil, false)
	c.stands(m2, "0", "0", "does not open the secrets of cluster")

	// Back: the member has its key by itself, and signs.
	kms.mu.Lock()
	kms.file = right
	kms.mu.Unlock()
	c.stands(m2, "1", "1")
	c.await("the cluster sees its key", func() bool {
		s, err := client.Get[client.KEKStatus](t.Context(), c.client(), "/v1/cluster/kek", nil)
		return err == nil && len(s.Members) == 2 && slices.Equal(s.Members[0].Keys, s.Members[1].Keys)
	})
	c.handTo(1)
	c.leads(1)
	c.seals(0)

	// Refusing at run time: the member goes on with what it has in memory, leads, signs and seals, and says what a restart
	// would lead to.
	kms.becomes(fleet.NewError(fleet.ErrDenied, "kms", "no permission to decrypt"), false)
	c.stands(m2, "1", "0", "no permission to decrypt", "would not after a restart")
	c.seals(1)
	kms.becomes(nil, true)
	c.stands(m2, "1", "0", "has not answered within 200ms")
	c.seals(1)
	c.leads(1)
	kms.becomes(nil, false)
	c.stands(m2, "1", "1")
	kms.mu.Lock()
	defer kms.mu.Unlock()
	if kms.atOnce != 1 || kms.asked < 5 {
		t.Errorf("asked %d times, %d at one time", kms.asked, kms.atOnce)
	}
}

func TestWhatIsNoKeyEndsAMember(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	c.members[0].stop(t)
	kms := &service{refusal: fleet.Invalid("kek", "this is no key")}
	if err := controlplane.RunWith(t.Context(), c.members[0].config, kms, t.Output()); !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), "this is no key") {
		t.Errorf("got %v", err)
	}
}
