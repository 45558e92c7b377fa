// Package report is what a load test found: counted checks against their bounds, and on what machine and commit.
//
// It owns the form, as JSON and as a table, and nothing of how the numbers come about.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Check is one number and what it is held against.
type Check struct {
	// Name says what was measured.
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Bound is what Value must be, for example ">= 3500"; empty for a number that is only told.
	Bound Bound `json:"bound"`
	Holds bool  `json:"holds"`
	// Note says how it was measured, or why it could not be.
	Note string `json:"note,omitempty"`
}

// Bound is a comparison with a number, or none.
type Bound struct {
	// Op is ">=", "<=", or empty for no bound.
	Op    string
	Limit float64
}

// AtLeast is the bound that a value reaches limit.
func AtLeast(limit float64) Bound { return Bound{">=", limit} }

// AtMost is the bound that a value does not go beyond limit.
func AtMost(limit float64) Bound { return Bound{"<=", limit} }

// String is the bound for people and for JSON.
func (b Bound) String() string {
	if b.Op == "" {
		return ""
	}
	return b.Op + " " + number(b.Limit)
}

// MarshalText implements encoding.TextMarshaler.
func (b Bound) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bound) UnmarshalText(text []byte) error {
	op, limit, found := strings.Cut(string(text), " ")
	if !found {
		*b = Bound{}
		return nil
	}
	v, err := strconv.ParseFloat(limit, 64)
	*b = Bound{op, v}
	return err
}

// holds reports whether v is within the bound.
func (b Bound) holds(v float64) bool {
	switch b.Op {
	case ">=":
		return v >= b.Limit
	case "<=":
		return v <= b.Limit
	}
	return true
}

// Peer is a program that the scenario ran, and how.
type Peer struct {
	Name string `json:"name"`
	// Version is what the program says of itself, Setup how it was configured, so that a comparison can be judged.
	Version string `json:"version"`
	Setup   string `json:"setup"`
}

// Report is one run of a scenario.
type Report struct {
	Scenario string    `json:"scenario"`
	Short    bool      `json:"short"`
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"`
	Commit   string    `json:"commit"`
	Machine  Machine   `json:"machine"`
	Peers    []Peer    `json:"peers"`
	Checks   []Check   `json:"checks"`
	// Holds: all checks do.
	Holds bool `json:"holds"`
}

// Add holds a value against its bound and keeps it.
func (r *Report) Add(name string, value float64, unit string, bound Bound, note string) Check {
	c := Check{Name: name, Value: value, Unit: unit, Bound: bound, Holds: bound.holds(value), Note: note}
	r.Checks = append(r.Checks, c)
	return c
}

// Fail keeps a check that could not be made: it does not hold.
func (r *Report) Fail(name, unit, why string) {
	r.Checks = append(r.Checks, Check{Name: name, Unit: unit, Note: why})
}

// Finish sets what is known at the end.
func (r *Report) Finish(now time.Time) {
	r.Seconds = math.Round(now.Sub(r.Started).Seconds()*10) / 10
	r.Holds = len(r.Checks) > 0
	for _, c := range r.Checks {
		r.Holds = r.Holds && c.Holds
	}
}

// WriteJSON writes the report as one indented object.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "CHECK\tVALUE\tBOUND\tHOLDS\tNOTE")
	for _, c := range r.Checks {
		holds := "yes"
		if !c.Holds {
			holds = "NO"
		} else if c.Bound.Op == "" {
			holds = "-"
		}
		_, _ = fmt.Fprintf(t, "%s\t%s %s\t%s\t%s\t%s\n", c.Name, number(c.Value), c.Unit, c.Bound, holds, c.Note)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range r.Peers {
		if _, err := fmt.Fprintf(w, "%s %s: %s\n", p.Name, p.Version, p.Setup); err != nil {
			return err
		}
	}
	verdict := "all hold"
	if !r.Holds {
		verdict = "NOT all hold"
	}
	_, err := fmt.Fprintf(w, "%s: %s after %.0f s, commit %s, %s\n", r.Scenario, verdict, r.Seconds, r.Commit, r.Machine)
	return err
}

// number prints what a reader can compare: three significant digits below a thousand, none behind the point above.
func number(v float64) string {
	if math.Abs(v) >= 1000 {
		return strconv.FormatFloat(math.Round(v), 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
