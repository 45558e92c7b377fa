package quality_test

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// placements put a payload into a request, in the places and encodings that applications take values from.
var placements = []struct {
	name string
	// kind limits the placement to types of attack; empty for all but those that need a place of their own.
	kind string
	make func(payload string) request
}{
	{"query", "", func(p string) request { return place("query", "q", p) }},
	{"query, encoded twice", "", func(p string) request { return place("query", "q", url.QueryEscape(p)) }},
	{"query, base64", "", func(p string) request { return place("query", "data", base64.StdEncoding.EncodeToString([]byte(p))) }},
	{"path", "", func(p string) request { return place("path", "", p) }},
	{"form", "", func(p string) request { return place("form", "comment", p) }},
	{"form, base64", "", func(p string) request {
		return place("form", "payload", base64.RawURLEncoding.EncodeToString([]byte(p)))
	}},
	{"json", "", func(p string) request { return place("json", "user.name", p) }},
	{"json, \\u escapes", "", func(p string) request { return unicodeEscaped(p) }},
	{"json in json", "", func(p string) request {
		return place("json", "message", string(mustJSON(map[string]string{"text": p})))
	}},
	{"json in a form", "", func(p string) request {
		return place("form", "data", string(mustJSON(map[string]any{"items": []string{p}})))
	}},
	{"json, base64", "", func(p string) request {
		return place("json", "blob", base64.StdEncoding.EncodeToString([]byte(p)))
	}},
	{"json called text", "", func(p string) request {
		r := place("json", "user.name", p)
		r.kind = "text/plain"
		return r
	}},
	{"xml", "", xmlRequest},
	{"multipart", "", func(p string) request { return place("multipart", "comment", p) }},
	{"graphql, variable", "", func(p string) request {
		return graphql("query U($n: String!) { user(name: $n) { id } }", map[string]string{"n": p})
	}},
	{"graphql, argument", "", func(p string) request {
		return graphql(fmt.Sprintf("{ user(name: %s) { id } }", mustJSON(p)), nil)
	}},
	{"header", "", func(p string) request { return place("header", "X-Api-Version", p) }},
	{"referer", "", func(p string) request {
		return place("header", "Referer", "https://www.example.org/?q="+url.QueryEscape(p))
	}},
	{"cookie", "", func(p string) request { return place("cookie", "", "lang="+url.QueryEscape(p)+"; theme=dark") }},
	{"cookie, base64", "", func(p string) request {
		return place("cookie", "", "prefs="+base64.StdEncoding.EncodeToString([]byte(p)))
	}},
	{"token", "", func(p string) request {
		part := func(v any) string { return base64.RawURLEncoding.EncodeToString(mustJSON(v)) }
		jwt := part(map[string]string{"alg": "HS256", "typ": "JWT"}) + "." + part(map[string]string{"sub": p}) + ".c2lnbmF0dXJl"
		return place("header", "Authorization", "Bearer "+jwt)
	}},
	{"grpc", "", grpcRequest},
	{"xml document", "xxe", func(p string) request {
		return request{method: "POST", target: "/api/xml", kind: "application/xml", body: p}
	}},
	{"soap", "xxe", func(p string) request {
		return request{method: "POST", target: "/soap", kind: "text/xml; charset=utf-8", headers: []string{`SOAPAction: "urn:x"`}, body: p}
	}},
	{"json document", "nosqli", func(p string) request {
		if !json.Valid([]byte(p)) {
			p = string(mustJSON(p))
		}
		return request{method: "POST", target: "/api/login", kind: "application/json", body: `{"username":"admin","password":` + p + `}`}
	}},
}

// ownPlace are the types that only some placements carry.
var ownPlace = map[string]bool{"xxe": true}

// readAttacks puts every payload of dir into every placement.
func readAttacks(t testing.TB, dir string) []request {
	t.Helper()
	var all []request
	for _, line := range readLines(t, dir+"/payloads.txt") {
		kind, payload, _ := strings.Cut(line, " ")
		for _, p := range placements {
			if p.kind == "" && ownPlace[kind] || p.kind != "" && p.kind != kind {
				continue
			}
			r := p.make(payload)
			r.group, r.name, r.attack = p.name, kind+": "+payload, true
			all = append(all, r)
		}
	}
	return all
}

func mustJSON(v any) []byte {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // strings and maps of them
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}

func unicodeEscaped(p string) request {
	var b strings.Builder
	for _, r := range p {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return request{method: "POST", target: "/api/v1/items", kind: "application/json", body: `{"name":"` + b.String() + `"}`}
}

func xmlRequest(p string) request {
	escaped := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(p)
	return request{method: "POST", target: "/api/xml", kind: "application/xml", body: `<?xml version="1.0"?><order><name>` + escaped + `</name></order>`}
}

func graphql(query string, variables map[string]string) request {
	return request{method: "POST", target: "/graphql", kind: "application/json", body: string(mustJSON(map[string]any{"query": query, "variables": variables}))}
}

// grpcRequest is a unary call with one message, whose second field is the payload.
func grpcRequest(p string) request {
	message := append([]byte{0x08, 0x01, 0x12}, binary.AppendUvarint(nil, uint64(len(p)))...)
	message = append(message, p...)
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return request{method: "POST", target: "/shop.v1.Users/Get", kind: "application/grpc", headers: []string{"TE: trailers"}, body: string(append(frame, message...))}
}
