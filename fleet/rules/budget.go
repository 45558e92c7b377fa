package rules

import (
	"regexp/syntax"

	"github.com/edgefleet/edgefleet/fleet"
)

// maxProgram bounds the program of one regular expression, in instructions: the time to search a text is at most its
// length times the program.
const maxProgram = 4_000

// budget is what rules cost, or may.
type budget struct {
	// expressions counts regular expressions, program their instructions.
	expressions, program, conditions, pages int
}

// What a tenant may have, and what a node loads. Rules that are added at the same time may go beyond the first together.
var (
	admitted = budget{expressions: 4_000, program: 250_000, conditions: 10_000, pages: 8}
	hard     = budget{expressions: 8_000, program: 500_000, conditions: 20_000, pages: 16}
)

func (b budget) plus(o budget) budget {
	return budget{b.expressions + o.expressions, b.program + o.program, b.conditions + o.conditions, b.pages + o.pages}
}

func (b budget) within(most budget) error {
	for _, l := range []struct {
		field, what string
		used, most  int
	}{
		{"pattern", "regular expressions", b.expressions, most.expressions},
		{"pattern", "instructions of regular expressions", b.program, most.program},
		{"conditions", "conditions", b.conditions, most.conditions},
		{"page", "block pages", b.pages, most.pages},
	} {
		if l.used > l.most {
			return fleet.NewError(fleet.ErrTooLarge, l.field, "with this rule the tenant has %d %s; the limit is %d: delete rules, or make their expressions shorter", l.used, l.what, l.most)
		}
	}
	return nil
}

// measure parses an expression and adds what it costs.
func measure(field, pattern string, cost *budget) (*syntax.Regexp, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, fleet.Invalid(field, "%q is not an RE2 regular expression: %v", pattern, err)
	}
	n := program(re)
	if n > maxProgram {
		return nil, fleet.NewError(fleet.ErrTooLarge, field, "the expression %.80q makes a program of about %d instructions; the limit is %d: repeat less, as in {1,20} for {1,1000}", pattern, n, maxProgram)
	}
	cost.expressions++
	cost.program += n
	return re, nil
}

// program is about how many instructions re compiles to. It stops counting some way above the limit.
func program(re *syntax.Regexp) int {
	const enough = 1 << 24
	sum := 0
	for _, sub := range re.Sub {
		sum = min(sum+program(sub), enough)
	}
	switch re.Op { //nolint:exhaustive // all others are one instruction
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCapture, syntax.OpAlternate, syntax.OpConcat:
		return sum + len(re.Sub) + 1
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest:
		return sum + 1
	case syntax.OpRepeat:
		return min(sum*max(re.Max, re.Min, 1)+max(re.Max-re.Min, 0)+1, enough)
	}
	return 1
}
