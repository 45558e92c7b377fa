package consensus_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/observability"
)

func TestRaftsLogKeepsItsFieldsAndNotItsNoise(t *testing.T) {
	var out bytes.Buffer
	handler := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	l := consensus.NewLogger(slog.New(handler)).Named("snapshot").With("last-index", 7)
	l.Debug("chatter")
	l.Info("entering leader state")
	l.Warn("heartbeat timeout reached", "last-leader-addr", hclog.Fmt("%s:%d", "m1", 1))
	l.Error("append", "error", errors.New("no space"), "odd")
	want := `level=WARN msg="heartbeat timeout reached" component=raft part=snapshot last_index=7 last_leader_addr=m1:1
level=ERROR msg=append component=raft part=snapshot last_index=7 err="no space" extra=odd
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if l.IsInfo() || !l.IsWarn() || l.GetLevel() != hclog.Warn {
		t.Errorf("level is %v", l.GetLevel())
	}
}

// TestAnUndecodableEntryHaltsTheMember runs itself as the process that must end.
func TestAnUndecodableEntryHaltsTheMember(t *testing.T) {
	const child = "CONSENSUS_TEST_HALT"
	if os.Getenv(child) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("the process did not fail: %v\n%s", err, out)
		}
		for _, want := range []string{"cannot apply a committed entry, halting this member", "index=", "term=", "panic: command of unknown type"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		return
	}
	tel := observability.Discard()
	tel.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	o := newAuthority(t).options(t, "m1")
	o.FSM, o.Telemetry = &list{}, tel
	n, err := consensus.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "m1 leads", n.IsLeader)
	_, _, err = n.Apply(t.Context(), []byte("undecodable"))
	t.Logf("the member lives on: %v", err)
	select {} // the process ends from the state machine's goroutine
}
