package waf_test

import (
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestAnAttackInAnotherEncodingIsFoundWhereItIs(t *testing.T) {
	const attack = "' UNION SELECT password FROM users--"
	encoded := base64.StdEncoding.EncodeToString([]byte(attack))
	token := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"`+attack+`"}`)) + ".c2ln"
	for name, test := range map[string]struct {
		sent  sent
		point string
	}{
		"base64 in the query":      {sent{uri: "/?d=" + url.QueryEscape(encoded)}, "get.d.base64"},
		"base64 in json":           {sent{method: "POST", uri: "/", contentType: "application/json", body: `{"a":"` + encoded + `"}`}, "post.json_doc.hash.a.base64"},
		"json in a form":           {sent{method: "POST", uri: "/", contentType: form, body: "d=" + url.QueryEscape(`{"a":"`+attack+`"}`)}, "post.form_urlencoded.d"},
		"a header of one's own":    {sent{uri: "/", headers: map[string]string{"X-Tenant": attack}}, "header.X-TENANT"},
		"a part of the path":       {sent{uri: "/items/" + url.PathEscape(attack) + "/view"}, "path.1"},
		"a token":                  {sent{uri: "/", headers: map[string]string{"Authorization": "Bearer " + token}}, ""},
		"a text in a gRPC message": {sent{method: "POST", uri: "/shop.Users/Get", contentType: "application/grpc", body: "\x00\x00\x00\x00\x26\x12\x24" + attack}, "post"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newEngine(t).Judge(t.Context(), test.sent.input(fleet.ModeBlock))
			if !d.Block || len(d.Events) == 0 || d.EngineError != nil {
				t.Fatalf("%+v", d)
			}
			if got := d.Events[0].Point; test.point != "" && got != test.point {
				t.Errorf("point %s, want %s", got, test.point)
			}
		})
	}
}

func TestTheDetectorsOfOurOwnNameTheirAttack(t *testing.T) {
	const xml = `<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>`
	for name, test := range map[string]struct {
		sent sent
		kind fleet.AttackType
	}{
		"an external entity":   {sent{method: "POST", uri: "/", contentType: "application/xml", body: xml}, fleet.AttackXXE},
		"a template":           {sent{uri: "/?q=" + url.QueryEscape("{{7*7}}")}, fleet.AttackSSTI},
		"a scheme for servers": {sent{uri: "/?u=" + url.QueryEscape("dict://127.0.0.1:11211/stat")}, fleet.AttackSSRF},
		"a short command":      {sent{uri: "/?host=" + url.QueryEscape("| id")}, fleet.AttackRCE},
	} {
		t.Run(name, func(t *testing.T) {
			d := newEngine(t).Judge(t.Context(), test.sent.input(fleet.ModeBlock))
			own := false
			for _, ev := range d.Events {
				for _, r := range ev.Rules {
					own = own || ev.Type == test.kind && strings.HasPrefix(r.ID, "945")
				}
			}
			if !d.Block || !own {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestTheStockProfileIsTheCoreRuleSetAsItComes(t *testing.T) {
	stock, err := waf.NewEngine(waf.Options{Profile: waf.ProfileStock})
	if err != nil {
		t.Fatal(err)
	}
	prose := sent{uri: "/?q=" + url.QueryEscape("Union Station Select Foods")}.input(fleet.ModeBlock)
	if d := stock.Judge(t.Context(), prose); !d.Block {
		t.Error("stock: the core rule set takes it for an attack")
	}
	if d := newEngine(t).Judge(t.Context(), prose); d.Block || len(d.Events) > 0 {
		t.Errorf("tuned: %+v", d)
	}
	if _, err := waf.NewEngine(waf.Options{Profile: "loud"}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("an unknown profile: %v", err)
	}
}
