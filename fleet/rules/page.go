package rules

import (
	"encoding/json"
	"html"
	"net/http"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// PageValues are what the variables of a block page stand for.
type PageValues struct{ RequestID, Host, ClientAddress string }

// RenderPage is the body of p for one request. Values are escaped for the page's type.
func RenderPage(p fleet.BlockPage, v PageValues) string {
	escape := html.EscapeString
	if p.ContentType == "application/json" {
		escape = escapeJSON
	}
	return strings.NewReplacer(
		"{{request_id}}", escape(v.RequestID), "{{host}}", escape(v.Host), "{{client_address}}", escape(v.ClientAddress),
	).Replace(p.Body)
}

func escapeJSON(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return "" // not reached: a string always has a JSON form
	}
	return string(b[1 : len(b)-1])
}

// checkPage holds that a page of JSON is JSON, its variables inside strings or not.
func checkPage(p fleet.BlockPage) error {
	if p.ContentType != "application/json" {
		return nil
	}
	if body := RenderPage(p, PageValues{"0", "0", "0"}); !json.Valid([]byte(body)) {
		return fleet.Invalid("page.body", "the page is not JSON: variables such as {{request_id}} stand inside of strings")
	}
	return nil
}

func canonicalHeader(name string) string { return http.CanonicalHeaderKey(name) }
