package api_test

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

func TestAStaleReadSaysWhatItIncludesAndHowOldItIs(t *testing.T) {
	f := open(t, 2)
	f.op().call("POST", "/v1/tenants", client.TenantCreate{ID: "acme"}).want(201)
	ms := func(n int64) *int64 { return &n }
	for name, tt := range map[string]struct {
		member int
		silent *int64
		query  string
		status int
		age    string
		field  string
	}{
		"the leader's state has no age":                         {0, nil, "?consistency=stale&max_age=1ms", 200, "0", ""},
		"a follower says when it heard from the leader":         {1, ms(40), "?consistency=stale", 200, "40", ""},
		"one that was cut off answers whoever does not ask":     {1, ms(60_000), "?consistency=stale", 200, "60000", ""},
		"it answers whoever bears it":                           {1, ms(60_000), "?consistency=stale&max_age=1m", 200, "60000", ""},
		"and nobody else":                                       {1, ms(60_001), "?consistency=stale&max_age=1m", 503, "", "query.max_age"},
		"one that never heard from a leader says no age":        {1, nil, "?consistency=stale", 200, "", ""},
		"and is not trusted with any":                           {1, nil, "?consistency=stale&max_age=24h", 503, "", "query.max_age"},
		"an age is a duration":                                  {1, ms(1), "?consistency=stale&max_age=10", 422, "", "query.max_age"},
		"of more than nothing":                                  {1, ms(1), "?consistency=stale&max_age=0s", 422, "", "query.max_age"},
		"a linearizable read has none":                          {0, nil, "?max_age=10s", 422, "", "query.max_age"},
		"a linearizable read through a follower has none":       {1, ms(1), "?max_age=10s", 422, "", "query.max_age"},
		"a linearizable read says what it includes, and no age": {1, ms(60_000), "", 200, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f.cutOff(tt.member, tt.silent)
			got := f.at(tt.member, f.operator).call(http.MethodGet, "/v1/tenants/acme"+tt.query, nil).want(tt.status)
			if got.header.Get("Edgefleet-Age") != tt.age || got.Field != tt.field {
				t.Errorf("age %q, field %q: %s", got.header.Get("Edgefleet-Age"), got.Field, got.body)
			}
			if index, err := strconv.Atoi(got.header.Get("Edgefleet-Index")); tt.status == 200 && (err != nil || index < 3) {
				t.Errorf("index %q", got.header.Get("Edgefleet-Index"))
			}
			if life := got.header.Get("Edgefleet-Incarnation"); tt.status == 200 && life != "1" {
				t.Errorf("incarnation %q", life)
			}
			if tt.status == 503 && got.header.Get("Retry-After") == "" {
				t.Error("it does not say when to ask again")
			}
		})
	}
}

func TestAMemberThatLagsSaysUpToWhichEntry(t *testing.T) {
	f := open(t, 2)
	index := func() string {
		return f.at(1, f.operator).call(http.MethodGet, "/v1/tenants?consistency=stale", nil).want(200).header.Get("Edgefleet-Index")
	}
	before := index()
	f.lag(1, true)
	f.op().call("POST", "/v1/tenants", client.TenantCreate{ID: "acme"}).want(201)
	if now := index(); now != before {
		t.Errorf("it has entry %s, and says %s", before, now)
	}
	f.lag(1, false)
	if now := index(); now == before {
		t.Errorf("it has the entry behind %s, and does not say so", before)
	}
}
