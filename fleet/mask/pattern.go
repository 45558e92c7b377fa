package mask

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// span is a part of a text, from start to before end.
type span struct{ start, end int }

// occurrences returns where secrets occur in v, in any of their encodings.
func (m *Masker) occurrences(v string) []span {
	folded := fold(v)
	var found []span
	for _, variant := range m.variants {
		for from := 0; ; {
			i := strings.Index(folded[from:], variant)
			if i < 0 {
				break
			}
			found = append(found, span{from + i, from + i + len(variant)})
			from += i + 1
		}
	}
	return found
}

// replaceRanges puts one Hidden in the place of each group of spans that touch.
func replaceRanges(v string, spans []span) string {
	if len(spans) == 0 {
		return v
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(a.start-b.start, a.end-b.end) })
	var b strings.Builder
	pos := 0
	for i := 0; i < len(spans); {
		start, end := spans[i].start, spans[i].end
		for i++; i < len(spans) && spans[i].start <= end; i++ {
			end = max(end, spans[i].end)
		}
		b.WriteString(v[pos:start] + Hidden)
		pos = end
	}
	return b.String() + v[pos:]
}

// assigned name= and "name": in any text, and what may follow. The value is matched for sensitive names only, so that
// the search stays linear.
var (
	assignedName  = regexp.MustCompile(`(?i)[a-z0-9_.\[\]\-]{1,64}(?:\\?["'])?\s*(?:=|:|%3d|%3a)\s*`)
	assignedValue = regexp.MustCompile(`(?i)^(?:(?:bearer|basic|digest|negotiate|token)\s+)?(?:\\?"(?:[^"\\]|\\[^"])*(?:\\?"|$)|'[^']*'?|[^&;,\s"'<>]+)`)
)

// assigned returns the values that v gives to sensitive names.
func (m *Masker) assigned(v string) []string {
	var found []string
	for _, at := range m.assignments(v) {
		value := strings.Trim(v[at.start:at.end], `\"'`)
		found = append(found, value, decode(value))
		if len(found) > maxSecrets {
			break
		}
	}
	return found
}

// assignments returns where the values are that v gives to sensitive names.
func (m *Masker) assignments(v string) []span {
	if !strings.ContainsAny(v, "=:%") {
		return nil
	}
	var spans []span
	for from := 0; from < len(v); {
		at := assignedName.FindStringIndex(v[from:])
		if at == nil {
			break
		}
		name := v[from+at[0] : from+at[1]]
		from += at[1]
		if !m.sensitive(name) {
			continue
		}
		if value := assignedValue.FindStringIndex(v[from:]); value != nil {
			spans = append(spans, span{from, from + value[1]})
			from += value[1]
		}
	}
	return spans
}

// hideAssigned hides the values that v gives to sensitive names.
func (m *Masker) hideAssigned(v string) string { return replaceRanges(v, m.assignments(v)) }

var email = regexp.MustCompile(`(?i)[a-z0-9._%+\-]+(?:@|%40)[a-z0-9\-]+(?:\.[a-z0-9\-]+)+`)

func hideEmails(v string) string {
	if !strings.Contains(v, "@") && !strings.Contains(v, "%40") {
		return v
	}
	return email.ReplaceAllString(v, Hidden)
}

// A card number has 13 to 19 digits, in groups or not, and a check digit (ISO/IEC 7812).
const (
	minCard = 13
	maxCard = 19
)

var digits = regexp.MustCompile(`[0-9](?:[ \-]?[0-9]){12,}`)

func hideCards(v string) string {
	return digits.ReplaceAllStringFunc(v, func(run string) string {
		plain := strings.NewReplacer(" ", "", "-", "").Replace(run)
		for start := 0; start+minCard <= len(plain); start++ {
			for n := minCard; n <= maxCard && start+n <= len(plain); n++ {
				if luhn(plain[start : start+n]) {
					return Hidden
				}
			}
		}
		return run
	})
}

func luhn(number string) bool {
	sum := 0
	for i := range len(number) {
		d := int(number[len(number)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}
