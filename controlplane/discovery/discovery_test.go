package discovery_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/edgefleet/edgefleet/controlplane/discovery"
	"github.com/edgefleet/edgefleet/controlplane/discovery/consultest"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

const patience = 30 * time.Second

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("waited in vain: " + what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func open(t *testing.T, o discovery.Options) *discovery.Consul {
	t.Helper()
	o.Retry, o.MaxRetry = 20*time.Millisecond, 200*time.Millisecond
	c, err := discovery.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// watched is what a watch told last.
type watched struct {
	mu        sync.Mutex
	instances []fleet.Instance
	err       error
	calls     int
}

func watch(t *testing.T, c *discovery.Consul, url string) *watched {
	t.Helper()
	s, err := fleet.Origin{URL: url}.ParseConsul()
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Watch(ctx, s, func(is []fleet.Instance, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.calls++
			if w.err = err; err == nil {
				w.instances = is
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *watched) is(want ...fleet.Instance) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err == nil && w.calls > 0 && slices.Equal(w.instances, want)
}

func (w *watched) failure() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprint(w.err)
}

func TestAWatchFollowsTheHealthyInstancesOfAService(t *testing.T) {
	s := consultest.Start(t)
	tel := observability.Discard()
	c := open(t, discovery.Options{Address: s.Address, Telemetry: tel})
	all, blue := watch(t, c, "consul://web"), watch(t, c, "consul://web?tag=blue")
	a, b := fleet.Instance{Address: "203.0.113.7", Port: 8080}, fleet.Instance{Address: "203.0.113.8", Port: 8080}
	await(t, "nothing is there", func() bool { return all.is() && blue.is() })
	s.Register("w2", "web", b.Address, b.Port, "blue")
	s.Register("w1", "web", a.Address, a.Port)
	await(t, "both are there", func() bool { return all.is(a, b) && blue.is(b) })
	if err := s.API.Agent().EnableServiceMaintenance("w1", "test"); err != nil {
		t.Fatal(err)
	}
	await(t, "the one in maintenance is not", func() bool { return all.is(b) })
	s.Deregister("w2")
	await(t, "none is", func() bool { return all.is() && blue.is() })
	s.Register("w3", "web", "", 80)
	ip, _, _ := net.SplitHostPort(s.Address)
	await(t, "an instance without an address is at its Consul node", func() bool { return all.is(fleet.Instance{Address: ip, Port: 80}) })

	s.Kill()
	await(t, "the failure is told, and shown as degraded", func() bool {
		return strings.Contains(all.failure(), "refused") && strings.Contains(tel.Health.Degraded()["consul"], "stay as they are") && c.Err() != nil
	})
	if len(tel.Health.Ready()) > 0 {
		t.Errorf("not ready: %v", tel.Health.Ready())
	}
	s.Begin()
	await(t, "Consul that is back has forgotten it", func() bool { return all.is() && c.Err() == nil && len(tel.Health.Degraded()) == 0 })
}

func TestAnswersThatAreNone(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"garbage": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>not Consul</html>")) },
		"an error as long as a book": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte(strings.Repeat("x\n", 1<<20)))
		},
		"an answer without end": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Consul-Index", "1")
			_, _ = w.Write([]byte("["))
			for range 20 << 10 {
				if _, err := w.Write([]byte(strings.Repeat(`{"Node":null},`, 80))); err != nil {
					return
				}
			}
		},
		"a redirection": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/", http.StatusFound)
		},
		"a refusal": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(answer)
			t.Cleanup(srv.Close)
			c := open(t, discovery.Options{Address: srv.URL})
			w := watch(t, c, "consul://web")
			await(t, "the failure is told", func() bool { return w.failure() != "<nil>" })
			if text := w.failure(); len(text) > 600 || strings.Contains(text, "\n") {
				t.Errorf("the error has %d bytes: %.300q", len(text), text)
			}
			if w.instances != nil {
				t.Errorf("instances %v", w.instances)
			}
			if name == "a refusal" && !strings.Contains(w.failure(), "deploy/consul/policy.hcl") {
				t.Error(w.failure())
			}
		})
	}
	t.Run("entries that are empty are passed over, and a Consul without an index is not asked all the time", func(t *testing.T) {
		var mu sync.Mutex
		asked := 0
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			asked++
			mu.Unlock()
			_, _ = w.Write([]byte(`[null, {"Checks":[null]}, {"Service":{"Address":"203.0.113.7","Port":1},"Checks":[null]}]`))
		}))
		t.Cleanup(srv.Close)
		c := open(t, discovery.Options{Address: srv.URL})
		w := watch(t, c, "consul://web")
		await(t, "the good entry is there", func() bool { return w.is(fleet.Instance{Address: "203.0.113.7", Port: 1}) })
		got, err := c.Members(t.Context(), "any")
		if diff := cmp.Diff([]string{"203.0.113.7:1"}, got); err != nil || diff != "" {
			t.Error(err, diff)
		}
		mu.Lock()
		defer mu.Unlock()
		if asked > 3 {
			t.Errorf("it was asked %d times", asked)
		}
	})
}

func TestTheTokenIsReadAnewAndNeverTold(t *testing.T) {
	s := consultest.Start(t, consultest.WithACL())
	file := filepath.Join(t.TempDir(), "token")
	c := open(t, discovery.Options{Address: s.Address, TokenFile: file})
	if _, err := c.Members(t.Context(), "web"); err == nil || !strings.Contains(err.Error(), "consul.token_file") && !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("without the file: %v", err)
	}
	const wrong = "99999999-2222-3333-4444-555555555555"
	write(t, file, wrong)
	if _, err := c.Members(t.Context(), "web"); err == nil || !strings.Contains(err.Error(), "policy.hcl") || strings.Contains(err.Error(), wrong) {
		t.Errorf("with a wrong token: %v", err)
	}
	write(t, file, leastToken(t, s)+"\n")
	s.Register("w", "web", "203.0.113.7", 8440)
	if got, err := c.Members(t.Context(), "web"); err != nil || !slices.Equal(got, []string{"203.0.113.7:8440"}) {
		t.Errorf("with the policy's token: %v %v", got, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// leastToken makes a token of the policy that operators are told to use.
func leastToken(t *testing.T, s *consultest.Server) string {
	t.Helper()
	rules, err := os.ReadFile("../../deploy/consul/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	var token *api.ACLToken
	await(t, "a policy and a token are made", func() bool {
		if _, _, err = s.API.ACL().PolicyCreate(&api.ACLPolicy{Name: "edgefleet", Rules: string(rules)}, nil); err != nil && !strings.Contains(err.Error(), "already exists") {
			return false
		}
		token, _, err = s.API.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: "edgefleet"}}}, nil)
		return err == nil
	})
	return token.SecretID
}

func TestOpenRefusesFilesThatAreNoGood(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.pem")
	write(t, bad, "not PEM")
	for field, o := range map[string]discovery.Options{
		"consul.ca_file":   {Address: "127.0.0.1:8500", CAFile: bad},
		"consul.cert_file": {Address: "127.0.0.1:8500", CertFile: bad, KeyFile: bad},
		"consul.address":   {Address: "ftp://127.0.0.1:8500"},
	} {
		_, err := discovery.Open(o)
		if e := fleet.AsError(err); e == nil || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}
