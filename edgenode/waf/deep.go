package waf

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/corazawaf/coraza/v3/types"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// maxDeep bounds the decoded values of one request that the rules see beside what Coraza reads itself.
const maxDeep = 200

// deepName begins the names of arguments that hold decoded values; the place in Request.All follows, or deepBody.
const (
	deepName = "decoded."
	deepBody = "post"
)

// addDeep adds what values hold in another encoding: an attack in base64, in a token, in JSON within a form, in a GraphQL
// argument or in a message of gRPC is the same attack. Headers and parts of the path that are for the application are
// arguments too. They count apart from the request's own, so that a form does not seem longer than it is.
func (e *Engine) addDeep(ctx context.Context, tx types.Transaction, r *request.Request) {
	added := 0
	add := func(name, value string) bool {
		if added == maxDeep {
			e.incomplete(ctx, "decoded_values")
			return false
		}
		tx.AddPathRequestArgument(deepName+name, value)
		added++
		return true
	}
	for i, v := range r.All() {
		if v.Value != "" && isDeep(v) && !add(strconv.Itoa(i), v.Value) {
			return
		}
	}
	req := r.Input()
	kind := mediaType(req.Header)
	if !strings.HasPrefix(kind, "application/grpc") && !strings.HasSuffix(kind, "protobuf") {
		return
	}
	for text := range strings.FieldsFuncSeq(string(req.Body[:min(len(req.Body), e.options.BodyLimit)]), isControl) {
		if len(text) >= minText && !add(deepBody, text) {
			return
		}
	}
}

// minText is the length of the shortest text that is looked at in a binary message: less is mostly chance.
const minText = 4

func isControl(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r == '\uFFFD' }

// isDeep reports whether Coraza does not read v as an argument, and it may hold more than a word.
func isDeep(v request.Value) bool {
	p := v.Point
	for i, e := range p {
		switch e[0] {
		case "base64", "jwt_payload", "jwt_header", "gzip", "gql":
			return true
		case "json_doc", "xml", "percent":
			if i > 1 || p[0][0] != "post" {
				return true
			}
		case "hash":
			if e[1] == "#doctype" {
				return true
			}
		}
	}
	switch p[0][0] {
	case "path", "action_name":
	case "header":
		if len(p) > 1 || !customHeader(p[0][1]) {
			return false
		}
	default:
		return false
	}
	return strings.ContainsFunc(v.Value, isSpecial)
}

// isSpecial reports whether r is in no word, number, date, path, type or URL without a query.
func isSpecial(r rune) bool {
	return (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z') && !strings.ContainsRune("-_.,/: +=?&#~@", r)
}

// customHeader reports whether what the header holds is for the application. The values of the others have a grammar, in
// which quotes, semicolons and parentheses are usual.
func customHeader(name string) bool {
	return name == "REFERER" || strings.HasPrefix(name, "X-") && !slices.Contains(plainHeaders, name)
}

// plainHeaders begin with X- and belong to the protocol all the same.
var plainHeaders = []string{"X-FORWARDED-FOR", "X-FORWARDED-HOST", "X-FORWARDED-PROTO", "X-REQUESTED-WITH", "X-CSRF-TOKEN", "X-XSRF-TOKEN"}

// deepValue is the value that addDeep added as name.
func deepValue(r *request.Request, name string) ([]request.Value, bool) {
	place, found := strings.CutPrefix(strings.ToLower(name), deepName)
	if !found {
		return nil, false
	}
	if place == deepBody {
		return r.At(fleet.Point{{"post"}}), true
	}
	i, err := strconv.Atoi(place)
	if all := r.All(); err == nil && i >= 0 && i < len(all) {
		return all[i : i+1 : i+1], true
	}
	return nil, false
}
