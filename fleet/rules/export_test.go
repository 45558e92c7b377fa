package rules

import "regexp/syntax"

// Break makes the pattern of a rule panic.
func (s *Set) Break(id string, with any) {
	for _, r := range s.detectors {
		if string(r.id) == id {
			r.needles, r.least, r.find = nil, 0, func(string) []int { panic(with) }
		}
	}
}

// Needles are those of an expression.
func Needles(pattern string) ([]string, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	return required(re), nil
}

// Lower is the text in which needles are looked for.
func Lower(s string) string { return string(appendLower(nil, s)) }

// Program is about how many instructions an expression compiles to.
func Program(pattern string) (int, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0, err
	}
	return program(re), nil
}

// Least is how many bytes every match of an expression has.
func Least(pattern string) (int, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0, err
	}
	return least(re), nil
}
