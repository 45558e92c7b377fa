package controlplane_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// writers make tenants through every member, one writer a member, until stop; a tenant that is there already was made
// twice, for each name is used once.
type writers struct {
	t    *testing.T
	name string
	stop chan struct{}
	done sync.WaitGroup
	made atomic.Int64

	mu    sync.Mutex
	names []fleet.TenantID
}

func (c *cluster) write(name string, ats ...*client.Client) *writers {
	w := &writers{t: c.t, name: name, stop: make(chan struct{})}
	for i, at := range ats {
		w.done.Go(func() { w.run(at, i) })
	}
	return w
}

func (w *writers) run(at *client.Client, writer int) {
	for n := 0; ; n++ {
		select {
		case <-w.stop:
			return
		default:
		}
		id := fleet.TenantID(fmt.Sprintf("%s-%d-%d", w.name, writer, n))
		if _, err := client.Post[fleet.Tenant](w.t.Context(), at, "/v1/tenants", client.TenantCreate{ID: id}); err != nil {
			w.t.Errorf("write %s: %v", id, err)
			return
		}
		if _, err := client.Get[fleet.Tenant](w.t.Context(), at, "/v1/tenants/"+string(id), nil); err != nil {
			w.t.Errorf("read of %s, which was acknowledged: %v", id, err)
			return
		}
		w.mu.Lock()
		w.names = append(w.names, id)
		w.mu.Unlock()
		w.made.Add(1)
	}
}

// progress waits until some more writes were acknowledged.
func (w *writers) progress() {
	w.t.Helper()
	until := w.made.Load() + 5
	await(w.t, "writes go on", func() bool { return w.made.Load() >= until || w.t.Failed() })
}

// end stops the writers and holds what was acknowledged against what is there.
func (w *writers) end(c *cluster) {
	w.t.Helper()
	close(w.stop)
	w.done.Wait()
	applied := map[string]int{}
	entries := auditLog(w.t, c.client())
	for _, e := range entries {
		applied[e.Object]++
	}
	for _, id := range w.names {
		if n := applied["tenant/"+string(id)]; n != 1 {
			w.t.Errorf("the acknowledged write %s was applied %d times", id, n)
		}
	}
	if err := fleet.VerifyAudit(entries); err != nil {
		w.t.Error(err)
	}
}

func TestNoRequestFailsWhileLeadershipIsHandedOver(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three members")
	}
	c := start(t, 3)
	w := c.write("w", c.at(0), c.at(1), c.at(2))
	for i := range 20 {
		w.progress()
		// On request of an operator that asks any member, for the next in turn or for any.
		in := client.LeaderTransfer{Reason: "maintenance"}
		if lead := c.leader(); i%2 == 0 {
			in.To = c.members[(lead+1)%3].config.Member
		}
		got, err := client.Post[client.LeaderTransferred](t.Context(), c.at(i%3), "/v1/cluster/transfer-leader", in)
		if err != nil || got.Leader == got.From || in.To != "" && got.Leader != in.To {
			t.Errorf("transfer %d to %q: %+v, %v", i, in.To, got, err)
		}
	}
	w.progress()
	w.end(c)

	if err := c.client().Do(t.Context(), http.MethodPost, "/v1/cluster/transfer-leader", nil, client.LeaderTransfer{To: "m9"}, nil); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("transfer to a member that does not exist: %v", err)
	}
}

func TestNoRequestFailsWhileTheLeaderStopsAndStarts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three members")
	}
	c := start(t, 3)
	for i := range 3 {
		// Clients know all members, as fleetctl does, and try the next when one takes no connection.
		w := c.write(fmt.Sprintf("w%d", i), c.client(), c.client(), c.client())
		w.progress()
		lead := c.leader()
		c.members[lead].stop(t)
		w.progress()
		w.end(c)
		old := c.members[lead].config
		c.members = append(c.members[:lead], c.members[lead+1:]...)
		back := c.run(old)
		c.await("the member is back", func() bool { return strings.Contains(readyz(t, back), `"ready":true`) })
	}
}
