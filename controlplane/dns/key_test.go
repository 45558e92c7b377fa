package dns_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestKeyFiles(t *testing.T) {
	for _, tc := range []struct{ name, text, says string }{
		{"as tsig-keygen writes it", keyText("transfer"), ""},
		{"in one line, with comments", "# a key\n// of ours\nkey Transfer. { secret " + secret + "; algorithm HMAC-SHA256; }", ""},
		{"empty", "", "does not begin with"},
		{"of something else", "options { directory \"/\"; };", "does not begin with"},
		{"two keys", keyText("transfer") + keyText("b"), "after one key"},
		{"with more than a key has", "key k { algorithm hmac-sha256; secret " + secret + "; mode 1; };", "more than an algorithm"},
		{"of MD5", "key k { algorithm hmac-md5; secret " + secret + "; };", "its algorithm is none of"},
		{"without an algorithm", "key k { secret " + secret + "; };", "its algorithm is none of"},
		{"of a short secret", "key k { algorithm hmac-sha256; secret c2hvcnQ=; };", "16 bytes or more"},
		{"of a secret that is none", "key k { algorithm hmac-sha256; secret !!!!; };", "base64"},
		{"that breaks off", "key k { algorithm hmac-sha256; secret " + secret, "after one key"},
		{"that is large", keyText("transfer") + strings.Repeat("#\n", 4000), "more than 4096 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k, err := dns.ParseKey([]byte(tc.text))
			if tc.says == "" {
				if err != nil || k.Name != "transfer." || k.Algorithm != mdns.HmacSHA256 {
					t.Errorf("%v %v", k, err)
				}
				return
			}
			if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), secret) {
				t.Errorf("%v does not say %q", err, tc.says)
			}
		})
	}
}

func TestAKeyFileThatEverybodyCanReadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(path, []byte(keyText("transfer")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := dns.ReadKey(path); !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), "chmod o= "+path) {
		t.Error(err)
	}
	if _, err := dns.ReadKey(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// FuzzParseKey holds that whatever stands in a key file, no error and no key shows what may be a secret.
func FuzzParseKey(f *testing.F) {
	f.Add([]byte(keyText("transfer")))
	f.Add([]byte("key a{algorithm hmac-sha512;secret " + secret + ";}"))
	f.Add([]byte("key { ; } \"\" # //"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := dns.ParseKey(b)
		if err != nil {
			if k.Name != "" || len(err.Error()) > 300 {
				t.Fatalf("%q %v", k.Name, err)
			}
			return
		}
		if _, ok := mdns.IsDomainName(k.Name); !ok || k.Algorithm == "" {
			t.Fatalf("%q %q", k.Name, k.Algorithm)
		}
		if text := fmt.Sprintf("%v%+v%#v%s", k, k, k, k); strings.ReplaceAll(text, k.Name, "") != "" {
			t.Fatalf("a key writes more than its name: %q", text)
		}
	})
}

// BenchmarkAnswers is one query from its bytes to the bytes of its answer.
func BenchmarkAnswers(b *testing.B) {
	src := content()
	for _, q := range []struct {
		name, qname string
		typ         uint16
	}{{"address", "abc.edge.example.", mdns.TypeA}, {"of many edges", "many.edge.example.", mdns.TypeA}, {"absent", "nope.edge.example.", mdns.TypeA}} {
		req := question(q.qname, q.typ)
		req.SetEdns0(1232, false)
		wire, err := req.Pack()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(q.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m := new(mdns.Msg)
				if err := m.Unpack(wire); err != nil {
					b.Fatal(err)
				}
				if _, err := dns.Respond(src, m, true).Pack(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
