package fsm_test

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// BenchmarkApply is what every member does for each write.
func BenchmarkApply(b *testing.B) {
	w := empty().must(b, clusterInit())
	for i := range 1000 {
		w.must(b, command.TenantPut{Put: command.Put{Create: true}, ID: fleet.TenantID(fmt.Sprintf("t%d", i)), Spec: fleet.TenantSpec{Form: fleet.SecurityEdge, Group: "default"}})
	}
	entry, err := command.Encode(header(noon), command.TenantPut{ID: "t7", Spec: fleet.TenantSpec{Name: "a tenant", Form: fleet.SecurityEdge, Group: "default"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := command.Decode(entry); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("apply", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w.feed(b, entry)
		}
	})
	for _, n := range []int{8, 64} {
		b.Run(fmt.Sprintf("in batches of %d", n), func(b *testing.B) {
			b.ReportAllocs()
			logs := make([]*raft.Log, n)
			for done := 0; done < b.N; done += n {
				for i := range logs {
					w.index++
					logs[i] = &raft.Log{Index: w.index, Term: 1, Data: entry}
				}
				w.ApplyBatch(logs)
			}
		})
	}
}
