package waf

import (
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/corazawaf/coraza/v3/experimental/plugins"
	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"
	"github.com/wasilibs/go-re2"
	"github.com/wasilibs/go-re2/experimental"
)

// registerRX replaces Coraza's @rx, which uses the standard library, by RE2: on bodies it is two to seven times faster.
// Coraza's table of operators is global.
var registerRX = sync.OnceFunc(func() { plugins.RegisterOperator("rx", newRX) })

type rx struct{ re *re2.Regexp }

// newRX compiles with the modes of Coraza's own operator: . matches a line feed, ^ and $ match at lines.
func newRX(o plugintypes.OperatorOptions) (plugintypes.Operator, error) {
	pattern := "(?sm)" + o.Arguments
	compile := re2.Compile
	if namesBytes(o.Arguments) {
		compile = experimental.CompileLatin1
	}
	re, err := compile(pattern)
	if err != nil {
		return nil, err
	}
	return &rx{re: re}, nil
}

// maxCaptures is how many groups rules can refer to: TX.0 to TX.9.
const maxCaptures = 10

// Evaluate reports whether value matches, and captures groups if the rule asks for it.
func (o *rx) Evaluate(tx plugintypes.TransactionState, value string) bool {
	if !tx.Capturing() {
		return o.re.MatchString(value)
	}
	groups := o.re.FindStringSubmatch(value)
	for i, g := range groups[:min(len(groups), maxCaptures)] {
		tx.CaptureField(i, g)
	}
	return len(groups) > 0
}

// namesBytes reports whether the pattern names bytes, such as \xbc, that are not valid UTF-8 by themselves: then it and
// its input are bytes, not text.
func namesBytes(pattern string) bool {
	var named []byte
	for rest := pattern; ; {
		_, after, found := strings.Cut(rest, `\x`)
		if !found {
			return !utf8.Valid(named)
		}
		digits := strings.TrimPrefix(after, "{")
		if len(digits) >= 2 {
			if b, err := strconv.ParseUint(digits[:2], 16, 8); err == nil {
				named = append(named, byte(b))
			}
		}
		rest = after
	}
}
