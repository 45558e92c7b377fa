package e2e_test

import (
	"fmt"
	"path/filepath"
	"testing"
)

// edge is an edge host that is not enrolled.
type edge struct {
	t       *testing.T
	dir, ip string
	id      string
	members []string
}

func newEdge(t *testing.T, id string, m *member) *edge {
	t.Helper()
	e := &edge{t: t, dir: t.TempDir(), ip: loopback(), id: id, members: []string{m.at(8440)}}
	e.configure()
	return e
}

func (e *edge) at(port int) string { return fmt.Sprintf("%s:%d", e.ip, port) }
func (e *edge) file() string       { return filepath.Join(e.dir, "edge.yaml") }

// configure writes the configuration file; see member.configure.
func (e *edge) configure(lines ...string) {
	e.t.Helper()
	text := fmt.Sprintf(`data_dir: %s/data
node: %s
addresses: [%s]
https_listen: %[3]s:8443
http_listen: %[3]s:8080
admin_listen: %[3]s:9180
control_plane: ["%[4]s"]
leave_dns: 0s
`, e.dir, e.id, e.ip, e.members[0])
	write(e.t, e.file(), edit(text, lines))
}

// run runs the supervisor, which has to end by itself.
func (e *edge) run(token string) result {
	e.t.Helper()
	return run(e.t, "edgesupervisor", []string{"EDGEFLEET_JOIN_TOKEN=" + token}, "run", "--config", e.file())
}
