package command_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func members(formats ...int) func() []fleet.Member {
	return func() (ms []fleet.Member) {
		for i, f := range formats {
			ms = append(ms, fleet.Member{ID: fleet.MemberID("m" + string(rune('1'+i))), Format: f})
		}
		return ms
	}
}

func TestTheFormatIsWhatAllMembersUnderstand(t *testing.T) {
	const ours = command.Format
	for _, tt := range []struct {
		name    string
		formats []int
		format  int
		older   []fleet.MemberID
	}{
		{"nobody else", nil, ours, nil},
		{"all as new as we are", []int{ours, ours, ours}, ours, nil},
		{"one is newer", []int{ours, ours + 1}, ours, nil},
		{"one is older", []int{ours, ours - 1, ours}, ours - 1, []fleet.MemberID{"m2"}},
		{"one never said", []int{0, ours, 1}, 1, []fleet.MemberID{"m1", "m3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			format, older := command.Common(members(tt.formats...)())
			if format != tt.format || !cmp.Equal(older, tt.older) {
				t.Errorf("got %d, held back by %v", format, older)
			}
		})
	}
}

func TestACommandWaitsForEveryMember(t *testing.T) {
	key := command.Header{Once: &command.Once{Caller: "c", Key: "k"}}
	old := members(command.Format, 1, 0)
	for _, typ := range command.Types() {
		body := empty(t, typ)
		h, err := command.Hold(key, body, old)
		if typ.Since() == 1 && (err != nil || h.Once != nil) {
			t.Errorf("%s: %v, with key %v", typ, err, h.Once)
		}
		if typ.Since() > 1 && (!errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), "the members m2, m3 understand 1: upgrade them")) {
			t.Errorf("%s: %v", typ, err)
		}
		if h, err := command.Hold(key, body, members(command.Format, command.Format)); err != nil || h.Once == nil {
			t.Errorf("%s, among ours: %v, with key %v", typ, err, h.Once)
		}
	}
	if key.Once == nil {
		t.Error("the caller's header was changed")
	}
}

func TestAFieldThatOldMembersDoNotKnowWaitsForThem(t *testing.T) {
	old := members(command.Format, 1)
	if _, err := command.Hold(command.Header{}, command.TokenIssue{IntroducedBy: "alice"}, old); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("got %v", err)
	}
	for name, s := range map[string]fleet.HostSpec{
		"TLS": {TLS: fleet.HostTLS{MinVersion: "1.3"}}, "forwarding": {Forwarding: fleet.Forwarding{MaxConnections: 1}},
		"a name for an origin": {Origins: []fleet.Origin{{ServerName: "a.example.com"}}}, "a CA for an origin": {Origins: []fleet.Origin{{CA: "-"}}},
		"a scheme": {Origins: []fleet.Origin{{URL: "h2c://203.0.113.1"}}},
	} {
		if _, err := command.Hold(command.Header{}, command.HostPut{Spec: s}, old); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("a host with %s: got %v", name, err)
		}
	}
	if _, err := command.Hold(command.Header{}, command.HostPut{Exclusive: true}, old); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("an exclusive claim: got %v", err)
	}
	plain := command.HostPut{Spec: fleet.HostSpec{Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.1"}}}}
	for _, b := range []command.Body{command.TokenIssue{}, command.TokenIssue{Replaces: "t"}, plain} {
		if _, err := command.Hold(command.Header{}, b, old); err != nil {
			t.Error(err)
		}
	}
}

// A command that comes later than these is of a later format, or it halts members that are not upgraded yet.
func TestNewCommandsSayTheirFormat(t *testing.T) {
	for _, typ := range command.Types() {
		if typ > command.TypeMemberRetire && typ.Since() == 1 {
			t.Errorf("%s needs a line in the table since, with the format after the last released one", typ)
		}
		if typ.Since() > command.Format {
			t.Errorf("%s is of format %d, this build of %d", typ, typ.Since(), command.Format)
		}
	}
}
