package fleet_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

func event() fleet.Event {
	return fleet.Event{
		ID: "n1:b1:7", NodeID: "n1", Boot: "b1", Seq: 7, Time: time.Date(2026, 11, 5, 1, 2, 3, 0, time.UTC),
		Tenant: "acme", Host: "api.example.com", Type: fleet.AttackSQLi, Status: fleet.Blocked,
	}
}

func TestEventOfAnyClientInputFitsAMessageOnceClipped(t *testing.T) {
	for name, s := range map[string]string{
		"control characters": strings.Repeat("\x01", 1<<20),
		"invalid UTF-8":      strings.Repeat("a\xff", 1<<20),
		"cut in a rune":      strings.Repeat("x€", 1<<20),
		"HTML":               strings.Repeat("<", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			e := event()
			e.Path, e.Method, e.Protocol, e.Point, e.Parameter, e.RequestID, e.TraceID, e.ClientIP = s, s, s, s, s, s, s, s
			for range 100 {
				e.Payloads = append(e.Payloads, s)
				e.MaskedPoints = append(e.MaskedPoints, s)
				e.Rules = append(e.Rules, fleet.MatchedRule{ID: "942100", Message: "SQL Injection Attack Detected via libinjection", Severity: "critical"})
			}
			if err := e.Validate(); !errors.Is(err, fleet.ErrTooLarge) {
				t.Fatalf("before: %v", err)
			}
			b, err := json.Marshal(fleet.EventMessage{Event: e.Clip()})
			if err != nil || len(b) > fleet.MaxEventBytes {
				t.Fatal(len(b), err)
			}
			// What a member reads is judged by the same limits.
			var m fleet.EventMessage
			if err := fleet.DecodeStrict(b, &m); err != nil {
				t.Fatal(err)
			}
			if err := m.Event.Validate(); err != nil {
				t.Error(err)
			}
			if e.Path != s || e.Rules[0].ID != "942100" || e.MaskedPoints[0] != s {
				t.Error("Clip changed its receiver")
			}
		})
	}
}

func TestEventIdentityIsChecked(t *testing.T) {
	for name, change := range map[string]func(*fleet.Event){
		"no node":            func(e *fleet.Event) { e.NodeID = "" },
		"no boot":            func(e *fleet.Event) { e.Boot = "" },
		"no tenant":          func(e *fleet.Event) { e.Tenant = "" },
		"sequence 0":         func(e *fleet.Event) { e.Seq = 0 },
		"id of another":      func(e *fleet.Event) { e.ID = "n2:b1:7" },
		"no time":            func(e *fleet.Event) { e.Time = time.Time{} },
		"no status":          func(e *fleet.Event) { e.Status = "" },
		"no type":            func(e *fleet.Event) { e.Type = "" },
		"year 10000":         func(e *fleet.Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"sequence over 2^63": func(e *fleet.Event) { e.Seq = 1 << 63; e.ID = "n1:b1:9223372036854775808" },
	} {
		e := event()
		change(&e)
		if err := e.Validate(); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := event().Validate(); err != nil {
		t.Error(err)
	}
}

func TestEventIDRoundTrip(t *testing.T) {
	n, b, s, err := fleet.ParseEventID(fleet.NewEventID("n1", "b1", 42))
	if err != nil || n != "n1" || b != "b1" || s != 42 {
		t.Error(n, b, s, err)
	}
	for _, bad := range []fleet.EventID{"", "n1:b1", "n1:b1:x", "n1:b1:-1", "n1:b1:+1", "n1:b1:01", "n1:b1:1:1", "N:b:1", "a:b:18446744073709551615"} {
		if _, _, _, err := fleet.ParseEventID(bad); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
