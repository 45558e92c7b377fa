package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// service starts a member again whenever it is killed, as systemd does, until the test ends.
type service struct {
	*member
	mu    sync.Mutex
	kills int
}

func supervise(t *testing.T, m *member) *service {
	t.Helper()
	s := &service{member: m}
	m.log = &buffer{}
	begin := func() {
		m.cmd = program("controlplane", nil, "run", "--config", m.file())
		m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
		if err := m.cmd.Start(); err != nil {
			t.Error(err)
		}
	}
	begin()
	ended, stopping := make(chan struct{}), false
	go func() {
		defer close(ended)
		for {
			err := m.cmd.Wait()
			s.mu.Lock()
			if stopping {
				if err != nil {
					t.Errorf("member %s ended: %v\n%s", m.id, err, m.log)
				}
				s.mu.Unlock()
				return
			}
			s.kills++
			begin()
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		s.mu.Lock()
		stopping = true
		err := m.cmd.Process.Signal(os.Interrupt)
		s.mu.Unlock()
		if err != nil {
			t.Error(err)
		}
		<-ended
	})
	return s
}

func (s *service) killed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kills
}

// region is a control plane of three members that take part in drills.
func region(t *testing.T) []*service {
	t.Helper()
	first := newMember(t, "m1")
	first.configure("drills: true", "region: eu-west", "raft_timeout: 500ms", "backup: {to: 'file://"+filepath.Join(first.dir, "backups")+"'}")
	first.initialize()
	all := []*service{supervise(t, first)}
	for id, region := range map[string]string{"m2": "eu-west", "m3": "eu-east"} {
		m := newMember(t, id)
		m.kek = first.kek
		m.configure("drills: true", "raft_timeout: 500ms", "region: "+region)
		var token string
		add := func(region string) {
			await(t, "a join token is made", func() bool {
				r := first.fleetctl("cluster", "add", id, "--region", region)
				token = strings.TrimSpace(r.stdout)
				return r.code == 0
			})
		}
		add("elsewhere")
		m.controlplane("join", "--token", token, "--address", first.at(8440)).says(t, fleet.ExitFailure, "for a member of region elsewhere")
		add(region)
		if r := m.controlplane("join", "--token", token, "--address", first.at(8440)); r.code != 0 {
			t.Fatal(r.stderr)
		}
		all = append(all, supervise(t, m))
	}
	await(t, "three members vote", func() bool {
		s, err := client.Get[client.ClusterStatus](t.Context(), first.client(), "/v1/cluster", nil)
		voters := 0
		for _, m := range s.Members {
			if m.Suffrage == "voter" {
				voters++
			}
		}
		return err == nil && s.Leader != "" && voters == 3
	})
	return all
}

const chapterDrills = "Drills"

func TestDrillsLoseMembersAndNoWrite(t *testing.T) {
	if testing.Short() {
		t.Skip("kills members")
	}
	t.Parallel()
	all := region(t)
	var addrs []string
	for _, m := range all {
		addrs = append(addrs, m.at(8440))
	}
	env := append(all[0].env(), "FLEETCTL_ADDR="+strings.Join(addrs, ","))
	ctl := func(args ...string) result { return run(t, "fleetctl", env, args...) }
	drill := func(args ...string) fleet.Drill {
		t.Helper()
		r := ctl(append([]string{"drill", "run", "-o", "json"}, args...)...)
		var d fleet.Drill
		if err := json.Unmarshal([]byte(r.stdout), &d); err != nil || r.code != 0 || d.State != fleet.DrillPassed || d.EndedAt.IsZero() {
			t.Fatalf("drill %v: %d %s %s (%v)", args, r.code, r.stdout, r.stderr, err)
		}
		return d
	}
	kills := func() (n int) {
		for _, m := range all {
			n += m.killed()
		}
		return n
	}
	status := func() (s client.ClusterStatus) {
		t.Helper()
		await(t, "there is a leader", func() bool {
			return json.Unmarshal([]byte(ctl("cluster", "status", "-o", "json").stdout), &s) == nil && s.Leader != ""
		})
		return s
	}
	book := openRunbook(t) // whose commands these are
	before := status()
	book.take(chapterDrills, "fleetctl drill run leader-loss")
	lost := drill("leader-loss", "--yes")
	if lost.RTO <= 0 || lost.RPO != 0 || lost.Lost != 0 || lost.Acknowledged < 70 || !strings.HasPrefix(lost.Detail, "1 of 1") || kills() != 1 {
		t.Errorf("%d killed, %+v", kills(), lost)
	}
	s := status()
	if s.Term <= before.Term { // who was elected may well be the one that was killed, and is back
		t.Errorf("member %s was killed while it led, and term %d goes on", lost.Target, s.Term)
	}
	book.take(chapterDrills, "fleetctl drill run region-loss --members m2")
	gone := drill("region-loss", "--members", string(s.Leader), "--yes")
	if gone.Target != string(s.Leader) || gone.Lost != 0 || gone.RPO != 0 || kills() != 2 {
		t.Errorf("%d killed, %+v", kills(), gone)
	}
	book.take(chapterDrills, "fleetctl drill run region-loss --region eu-east")
	if gone = drill("region-loss", "--region", "eu-east", "--yes"); gone.Target != "m3" || gone.Lost != 0 || gone.RPO != 0 || kills() != 3 {
		t.Errorf("%d killed, %+v", kills(), gone)
	}
	status()
	ctl("drill", "run", "region-loss", "--members", "m1,m2", "--yes").says(t, fleet.ExitConflict, "1 of 3 voters would remain", "no majority")
	ctl("drill", "run", "region-loss", "--region", "eu-west", "--yes").says(t, fleet.ExitConflict, "without m1, m2, 1 of 3 voters would remain", "--lose-majority")
	ctl("drill", "run", "region-loss", "--region", "nowhere", "--yes").says(t, fleet.ExitNotFound, "eu-east, eu-west")
	book.take(chapterDrills, "fleetctl drill run region-loss --region eu-west --lose-majority")
	if gone = drill("region-loss", "--region", "eu-west", "--lose-majority", "--yes"); gone.Target != "m1,m2" || gone.Lost != 0 || !strings.Contains(gone.Detail, "2 of 2") || kills() != 5 {
		t.Errorf("%d killed, %+v", kills(), gone)
	}
	status()
	ctl("drill", "run", "region-loss", "--members", "m9", "--yes").says(t, fleet.ExitNotFound, "m9")
	ctl("drill", "run", "region-loss", "--members", "m1").says(t, fleet.ExitUsage, "--yes")
	book.take(chapterDrills, "fleetctl drill run restore")
	if restored := drill("restore"); restored.RTO <= 0 || restored.Detail == "" {
		t.Errorf("%+v", restored)
	}
	if kills() != 5 {
		t.Errorf("%d were killed by what kills nobody", kills())
	}
	book.take(chapterDrills, "fleetctl drill list")
	r := ctl("drill", "list")
	if lines := strings.Split(strings.TrimSpace(r.stdout), "\n"); r.code != 0 || len(lines) != 6 || strings.Contains(r.stdout, "running") {
		t.Errorf("%s %s", r.stdout, r.stderr)
	}
	if left := book.left[chapterDrills]; len(left) > 0 {
		t.Errorf("nothing executes %q", left)
	}
}

func TestAMemberThatTakesNoPartInDrillsIsNotKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.fleetctl("drill", "run", "leader-loss", "--yes").says(t, fleet.ExitConflict, "0 of 1 voters would remain")
	var d fleet.Drill
	if err := c.client().Do(t.Context(), "POST", "/v1/drills", nil, client.DrillCreate{Kind: fleet.DrillLeaderLoss, Target: "m1", LoseMajority: true}, &d); err != nil {
		t.Fatal(err)
	}
	err := c.client().Do(t.Context(), "POST", "/v1/cluster/members/m1/crash", nil, client.MemberCrash{Drill: d.ID}, nil)
	if err == nil || !strings.Contains(err.Error(), "drills: true") || !c.running() {
		t.Errorf("%v", err)
	}
}
