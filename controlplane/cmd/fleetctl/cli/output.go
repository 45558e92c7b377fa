package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/term"
)

func (a *app) json() bool { return a.flags.output == "json" }

// printJSON writes the API's answer as it came; on a terminal it is indented.
func (a *app) printJSON(raw []byte) error {
	if isTerminal(a.Out) {
		var b bytes.Buffer
		if json.Indent(&b, bytes.TrimSpace(raw), "", "  ") == nil {
			raw = append(b.Bytes(), '\n')
		}
	}
	return write(a.Out, raw)
}

// printValue writes a value that did not come from the API.
func (a *app) printValue(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	return a.printJSON(append(b, '\n'))
}

// say writes a line of the answer.
func (a *app) say(format string, args ...any) error {
	return write(a.Out, []byte(fmt.Sprintf(format, args...)+"\n"))
}

func write(w io.Writer, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// isTerminal reports whether stream, one of the standard streams, is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// table aligns rows in columns.
type table struct {
	w    *tabwriter.Writer
	rows int
}

// newTable begins a table with a header; none makes one without.
func newTable(w io.Writer, header ...string) *table {
	t := &table{w: tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
	if len(header) > 0 {
		_, _ = fmt.Fprintln(t.w, strings.Join(header, "\t")) // errors stay in w until flush
	}
	return t
}

// row adds one row; an empty cell is a dash.
func (t *table) row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		if text[i] = clean(fmt.Sprint(c)); text[i] == "" {
			text[i] = "-"
		}
	}
	_, _ = fmt.Fprintln(t.w, strings.Join(text, "\t")) // errors stay in w until flush
	t.rows++
}

func (t *table) flush() error {
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// clean makes text harmless on a terminal: requests of attackers end up in events.
func clean(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
	}
	return b.String()
}

// list joins words for a sentence.
func list[T ~string](words []T) string {
	text := make([]string, len(words))
	for i, w := range words {
		text[i] = string(w)
	}
	return strings.Join(text, ", ")
}

// age says how long ago t was, or how far ahead it is, in its largest unit.
func (a *app) age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := a.Now().Sub(t)
	switch text := span(d.Abs()); {
	case d.Abs() < time.Second:
		return "now"
	case d < 0:
		return "in " + text
	default:
		return text + " ago"
	}
}

func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Round(time.Second)/time.Second)) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Round(time.Minute)/time.Minute)) + "m"
	case d < 2*day:
		return strconv.Itoa(int(d.Round(time.Hour)/time.Hour)) + "h"
	}
	return strconv.Itoa(int(d.Round(day)/day)) + "d"
}
