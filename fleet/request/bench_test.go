package request_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/fleet/request"
)

// browser is what a browser sends along.
func browser() http.Header {
	return http.Header{
		"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
		"Accept":          {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
		"Accept-Language": {"en-US,en;q=0.5"},
		"Accept-Encoding": {"gzip, deflate, br, zstd"},
		"Referer":         {"https://shop.example.com/blogs/122/index.php?page=1"},
		"Cookie":          {"SID=8f14e45fceea167a5a36dedd4bea2543; theme=dark; lang=en"},
		"Sec-Fetch-Dest":  {"document"},
	}
}

// order is a JSON document of about 2 KB.
func order() []byte {
	var items []string
	for i := range 20 {
		items = append(items, fmt.Sprintf(`{"id":%d,"name":"blue shirt number %d","price":12.50,"colours":["red","blue"],"gift":false}`, i, i))
	}
	return []byte(`{"user":"bob","note":"leave it at the door","items":[` + strings.Join(items, ",") + `]}`)
}

func BenchmarkParse(b *testing.B) {
	post := browser()
	post.Set("Content-Type", "application/json")
	for name, in := range map[string]request.Input{
		"get":  {Method: "GET", Scheme: "https", Proto: "HTTP/1.1", Host: "shop.example.com", URI: "/blogs/123/index.php?q=hello+world&page=2", Header: browser()},
		"json": {Method: "POST", Scheme: "https", Proto: "HTTP/1.1", Host: "shop.example.com", URI: "/api/v1/orders", Header: post, Body: order()},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				request.Parse(in, request.Limits{})
			}
		})
	}
}
