package e2e_test

import (
	"os"
	"strings"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

// members adds m4, replaces m3 by it when m3's host is gone, has a new m3 join, and removes m4 again.
func (l *life) members() {
	const chapter = "Add, remove and replace a member"
	m4 := l.member("m4")
	r := l.on(chapter, l.m1, l.m1.env())
	r.says(r.does("fleetctl cluster members"), "m1", "m2", "m3")
	r.does("fleetctl cluster add m4 > token")
	r.at = m4
	r.does("controlplane join --config /etc/edgefleet/controlplane.yaml --address FIRST:8440 --token TOKEN", "FIRST:8440", l.m1.at(8440), "TOKEN", r.kept())
	r.does("controlplane run --config /etc/edgefleet/controlplane.yaml")
	l.voters(4)
	r.does("fleetctl cluster transfer-leader")
	r.does("fleetctl cluster transfer-leader --to m2")
	await(l.t, "m2 leads", func() bool {
		s, err := client.Get[client.ClusterStatus](l.t.Context(), l.m1.client(), "/v1/cluster", nil)
		return err == nil && s.Leader == "m2"
	})

	kill(l.t, l.m3)
	r.does(`fleetctl cluster remove m3 --reason "its host burnt" --yes`)
	l.voters(3)
	r.says(r.does("fleetctl cluster status"), "m1", "m2", "m4")

	// A new host has its id.
	if err := os.RemoveAll(l.m3.data()); err != nil {
		l.t.Fatal(err)
	}
	token := r.does("fleetctl cluster add m3")
	if res := l.m3.controlplane("join", "--address", l.m1.at(8440), "--token", token); res.code != 0 {
		l.t.Fatal(res.stderr)
	}
	l.m3.launch()
	l.voters(4)

	r.does(`fleetctl cluster remove m4 --reason "back to three" --yes`)
	await(l.t, "m4 stops by itself", func() bool { return !m4.running() })
	if err := m4.cmd.Wait(); err == nil || !strings.Contains(m4.log.String(), "join it again with a new token") {
		l.t.Errorf("m4 ended with %v: %s", err, m4.log)
	}
	l.voters(3)
	l.m1.must("cluster", "transfer-leader", "--to", "m1")
	leads(l.t, l.m1)
}

// upgrade restarts a member, as if it had a new release.
func (l *life) upgrade() {
	r := l.on("Upgrade the control plane", l.m2, l.m1.env())
	r.says(r.does("fleetctl cluster status"), "log format")
	r.does("fleetctl cluster snapshot save before-the-upgrade.snapshot")
	r.does("systemctl restart edgefleet-controlplane")
	l.voters(3)
}
