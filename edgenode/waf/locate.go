package waf

import (
	"slices"
	"strings"

	"github.com/corazawaf/coraza/v3/types"
	"github.com/corazawaf/coraza/v3/types/variables"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// maxLooked bounds the matches of one rule that are looked up: a request may have a thousand that our parser does not know.
const maxLooked = 16

// locate finds the values of the request that a rule of the core rule set matched. Coraza's own copies are not used:
// its rules see them transformed, and a mask does not recognise a transformed secret.
func locate(r *request.Request, m types.MatchedRule) []request.Value {
	matched := m.MatchedDatas()
	for _, d := range matched[:min(len(matched), maxLooked)] {
		if values := values(r, d); len(values) > 0 {
			return values
		}
	}
	return nil
}

func values(r *request.Request, d types.MatchData) []request.Value {
	key := d.Key()
	if decoded, ok := deepValue(r, key); ok {
		return decoded
	}
	switch d.Variable() {
	case variables.Args:
		return exact(append(arguments(r, "get", key), arguments(r, "post", key)...), d.Value())
	case variables.ArgsGet:
		return exact(arguments(r, "get", key), d.Value())
	case variables.ArgsPost:
		return exact(arguments(r, "post", key), d.Value())
	case variables.ArgsNames:
		return names(append(arguments(r, "get", key), arguments(r, "post", key)...))
	case variables.ArgsGetNames:
		return names(arguments(r, "get", key))
	case variables.ArgsPostNames, variables.MultipartName, variables.FilesNames:
		return names(arguments(r, "post", key))
	case variables.Files, variables.MultipartFilename:
		return slices.Concat(r.At(fleet.Point{{"post"}, {"multipart_all"}, {"file_name"}}))
	case variables.RequestHeaders:
		return exact(r.At(fleet.Point{{"header", key}}), d.Value())
	case variables.RequestHeadersNames:
		return names(r.At(fleet.Point{{"header", key}}))
	case variables.RequestCookies:
		return exact(fold(r.At(fleet.Point{{"header", "COOKIE"}, {"cookie_all"}}), key), d.Value())
	case variables.RequestCookiesNames:
		return names(fold(r.At(fleet.Point{{"header", "COOKIE"}, {"cookie_all"}}), key))
	case variables.RequestFilename, variables.RequestBasename:
		return r.At(fleet.Point{{"path"}})
	case variables.RequestURI, variables.RequestURIRaw, variables.RequestLine, variables.QueryString:
		return r.At(fleet.Point{{"uri"}})
	case variables.RequestBody, variables.XML, variables.RequestXML:
		return r.At(fleet.Point{{"post"}})
	}
	return nil
}

// arguments returns the parameters of base that Coraza knows by key, whose case it may have changed.
func arguments(r *request.Request, base, key string) []request.Value {
	var found []request.Value
	for _, v := range r.All() {
		if v.Point[0][0] != base || base == "post" && len(v.Point) == 1 {
			continue
		}
		if strings.EqualFold(argumentName(v.Point), key) {
			found = append(found, v)
		}
	}
	return found
}

// argumentName is the name that Coraza gives to a parameter: json.a.0 for a field of a JSON body.
func argumentName(p fleet.Point) string {
	if p[0][0] == "get" {
		return p[0][1]
	}
	var name []string
	for _, e := range p[1:] {
		switch e[0] {
		case "form_urlencoded", "multipart":
			return e[1]
		case "json_doc":
			name = append(name, "json")
		case "hash", "array":
			name = append(name, e[1])
		}
	}
	return strings.Join(name, ".")
}

func fold(values []request.Value, name string) []request.Value {
	return slices.DeleteFunc(values, func(v request.Value) bool { return !strings.EqualFold(v.Name, name) })
}

// exact narrows values to those that matched as they are, if there are any: a rule may have changed what it compared.
func exact(values []request.Value, matched string) []request.Value {
	var found []request.Value
	for _, v := range values {
		if v.Value == matched || v.Raw == matched {
			found = append(found, v)
		}
	}
	if len(found) > 0 {
		return found
	}
	return values
}

// names turns values into their names: the rule matched the name.
func names(values []request.Value) []request.Value {
	out := slices.Clone(values)
	for i := range out {
		out[i].Raw, out[i].Value = out[i].Name, out[i].Name
	}
	return out
}
