package controlplane_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/audit"
)

// TestOldAuditEntriesAreFilesOnEveryMember seals over a change of the leader, loses a file, and verifies the chain of
// each member.
func TestOldAuditEntriesAreFilesOnEveryMember(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three members")
	}
	t.Parallel()
	c := start(t, 3) // which keep 100 entries in the state
	segments := func(i int) []string {
		files, err := filepath.Glob(filepath.Join(c.members[i].config.DataDir, "audit", "*.seg"))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	held := func(n int, members ...int) {
		t.Helper()
		for _, i := range members {
			c.await(fmt.Sprintf("member %d has %d segments", i, n), func() bool { return len(segments(i)) >= n })
		}
	}
	write := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			c.await("a write is accepted", func() bool {
				_, err := client.Post[fleet.Tenant](t.Context(), c.client(), "/v1/tenants", client.TenantCreate{ID: fleet.TenantID(fmt.Sprint("t", i))})
				return err == nil
			})
		}
	}
	write(0, 90)
	held(9, 0, 1, 2)
	lost := segments(1)[0]
	if err := os.Remove(lost); err != nil {
		t.Fatal(err)
	}
	stopped := c.leader()
	c.members[stopped].stop(t)
	write(90, 150)
	held(15, (stopped+1)%3, (stopped+2)%3)
	c.run(c.members[stopped].config)
	held(15, stopped)
	c.await("the deleted file is back", func() bool { _, err := os.Stat(lost); return err == nil })
	c.members = append(c.members[:stopped:stopped], c.members[stopped+1:]...)
	newest, err := client.Get[client.Page[fleet.AuditEntry]](t.Context(), c.client(), "/v1/audit", url.Values{"newest": {"true"}, "limit": {"1"}})
	if err != nil || len(newest.Items) != 1 {
		t.Fatal(err)
	}
	hashes := map[string]bool{}
	for i := range c.members {
		var report audit.Report
		q := url.Values{"consistency": {"stale"}, "to": {strconv.FormatUint(newest.Items[0].Seq, 10)}}
		c.await("a member answers an export that verifies", func() bool {
			b, err := c.at(i).Raw(t.Context(), http.MethodGet, "/v1/audit/export", q, nil)
			if err == nil {
				report, err = audit.Verify(bytes.NewReader(b), nil)
			}
			return err == nil
		})
		if report.From != 1 || report.To != newest.Items[0].Seq || report.Entries < 150 {
			t.Errorf("%+v", report)
		}
		hashes[report.Hash] = true
	}
	if len(hashes) != 1 {
		t.Errorf("the members have different chains: %v", hashes)
	}
}
