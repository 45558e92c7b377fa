package keyscan_test

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/deploy/e2e/keyscan"
)

// sample is a key, as a program has it.
type sample struct {
	class  string
	key    crypto.PrivateKey
	number []byte
}

func samples(t *testing.T) []sample {
	t.Helper()
	var out []sample
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		d, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, sample{c.Params().Name, k, d})
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return append(out, sample{"Ed25519", ed, ed.Seed()}, sample{"RSA", r, r.D.Bytes()})
}

func (s sample) pkcs8(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// traditional is SEC 1 or PKCS #1, and the label of its PEM.
func (s sample) traditional(t *testing.T) (label string, der []byte) {
	t.Helper()
	switch k := s.key.(type) {
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return "EC PRIVATE KEY", der
	case *rsa.PrivateKey:
		return "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k)
	}
	return "PRIVATE KEY", s.pkcs8(t)
}

// planted is text or bytes that give a value away.
type planted struct {
	name    string
	content []byte
}

// plants are the forms that every value, key or not, must be found in.
func plants(t *testing.T, v []byte) []planted {
	t.Helper()
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("sealed", "key", v)
	object, err := json.Marshal(map[string]any{"tenant": "shop", "key": v})
	if err != nil {
		t.Fatal(err)
	}
	nested, err := json.Marshal(map[string]any{"after": string(object)})
	if err != nil {
		t.Fatal(err)
	}
	blob, err := json.Marshal(map[string]any{"value": object})
	if err != nil {
		t.Fatal(err)
	}
	upper := strings.ToUpper(hex.EncodeToString(v))
	out := []planted{
		{"as it is", v},
		{"in hex", []byte("key=" + hex.EncodeToString(v))},
		{"in hex, upper case", []byte("key=" + upper)},
		{"in hex with colons", []byte(strings.ReplaceAll(fmt.Sprintf("% x", v), " ", ":"))},
		{"as a dump with spaces", fmt.Appendf(nil, "% x", v)},
		{"in base64", []byte(base64.StdEncoding.EncodeToString(v))},
		{"in base64url without padding", []byte(base64.RawURLEncoding.EncodeToString(v))},
		{"in base64 of base64", []byte(base64.StdEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString(v))))},
		{"in base64 with line breaks", []byte(strings.Join(split(base64.StdEncoding.EncodeToString(v), 19), "\n"))},
		{"in base64 with escaped line breaks", []byte(strings.Join(split(base64.StdEncoding.EncodeToString(v), 19), `\n`))},
		{"as a Go value", fmt.Append(nil, v)},
		{"as a list in JSON", []byte(strings.Join(strings.Fields(strings.Trim(fmt.Sprintf("%d", v), "[]")), ","))},
		{"quoted", []byte(strconv.Quote(string(v)))},
		{"in a log line", log.Bytes()},
		{"in JSON", object},
		{"in JSON within JSON", nested},
		{"in base64 of JSON", blob},
	}
	for pad := range 3 {
		larger := append(append([]byte("xy"[:min(pad, 2)]), v...), "and so on"...)
		out = append(out, planted{fmt.Sprintf("in base64 of something larger, %d bytes in", pad), []byte(base64.StdEncoding.EncodeToString(larger))},
			planted{fmt.Sprintf("in base64url of something larger, %d bytes in", pad), []byte(base64.URLEncoding.EncodeToString(larger))})
	}
	return out
}

func split(s string, n int) []string {
	var out []string
	for len(s) > n {
		out, s = append(out, s[:n]), s[n:]
	}
	return append(out, s)
}

func packed(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// cut is a file whose end is missing: less than the noise behind the secret.
func cut(b []byte) []byte { return b[:len(b)-2048] }

func scanner(t *testing.T, secrets ...keyscan.Secret) *keyscan.Scanner {
	t.Helper()
	s, err := keyscan.New(secrets)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// finds plants what gives a secret away in the middle of other bytes, in gzip, in gzip in gzip, and in gzip that is cut off.
func finds(t *testing.T, s *keyscan.Scanner, class string, p planted) {
	t.Helper()
	noise := make([]byte, 4096)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	content := append(append([]byte("something before: "), p.content...), "\nsomething behind"...)
	for where, b := range map[string][]byte{
		"file":             append(append([]byte{}, noise...), append(content, noise...)...),
		"gzip":             append([]byte(`{"envelope":1}`+"\n"), packed(t, content)...),
		"gzip in gzip":     packed(t, append([]byte("xx"), packed(t, content)...)),
		"gzip, cut off":    cut(packed(t, append(append([]byte{}, content...), noise...))),
		"at the very end":  append([]byte("behind:"), p.content...),
		"at the beginning": append(append([]byte{}, p.content...), "\n"...),
	} {
		got := s.Bytes(where, b)
		if len(got) == 0 {
			t.Errorf("%s is not found %s, in %s", class, p.name, where)
		}
		for _, f := range got {
			if f.Class != class || f.Where != where {
				t.Errorf("%s %s, in %s: found %v", class, p.name, where, f)
			}
		}
	}
}

func TestEverySecretIsFoundInEveryForm(t *testing.T) {
	for _, k := range samples(t) {
		t.Run(k.class, func(t *testing.T) {
			secrets, err := keyscan.Key(k.class, "k", k.key)
			if err != nil {
				t.Fatal(err)
			}
			s := scanner(t, secrets...)
			label, old := k.traditional(t)
			for what, v := range map[string][]byte{"number": k.number, "PKCS #8": k.pkcs8(t), label: old} {
				for _, p := range plants(t, v) {
					p.name = "as " + what + ", " + p.name
					finds(t, s, k.class, p)
				}
			}
			for label, der := range map[string][]byte{"PRIVATE KEY": k.pkcs8(t), label: old} {
				text := pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
				for _, p := range append(plants(t, text), planted{"with Windows line breaks", bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))}) {
					p.name = "as PEM, " + p.name
					finds(t, s, k.class, p)
				}
			}
			finds(t, s, k.class, planted{"as JWK", fmt.Appendf(nil, `{"kty":"EC","crv":"P-256","d":%q}`, base64.RawURLEncoding.EncodeToString(k.number))})
		})
	}
	for class, v := range map[string][]byte{"symmetric key": random(t, 32), "16 bytes": random(t, 16), "token": []byte("eft1.tok-77.c2VjcmV0LXNlY3JldC1zZWNyZXQ")} {
		s := scanner(t, keyscan.Secret{Class: class, Name: "x", Value: v})
		for _, p := range plants(t, v) {
			finds(t, s, class, p)
		}
	}
}

func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnyPrivateKeyIsFoundThoughNobodyNamedIt(t *testing.T) {
	s := scanner(t)
	for _, k := range samples(t) {
		label, old := k.traditional(t)
		for name, content := range map[string][]byte{
			"PKCS #8":                  k.pkcs8(t),
			"DER of before":            old,
			"PEM":                      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k.pkcs8(t)}),
			"PEM of before":            pem.EncodeToMemory(&pem.Block{Type: label, Bytes: old}),
			"PEM in JSON":              fmt.Appendf(nil, "%q", pem.EncodeToMemory(&pem.Block{Type: label, Bytes: old})),
			"base64 of PKCS #8":        []byte(base64.StdEncoding.EncodeToString(k.pkcs8(t))),
			"base64url of SEC 1":       []byte(base64.RawURLEncoding.EncodeToString(old)),
			"base64 with line breaks":  []byte(strings.Join(split(base64.StdEncoding.EncodeToString(old), 64), "\n")),
			"JWK":                      fmt.Appendf(nil, `{"crv":"x","kty":"EC","d":%q}`, base64.RawURLEncoding.EncodeToString(k.number)),
			"JWK within JSON":          fmt.Appendf(nil, `{\"kty\":\"OKP\",\"d\":\"%s\"}`, base64.RawURLEncoding.EncodeToString(k.number)),
			"a key among certificates": append(append([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"), pem.EncodeToMemory(&pem.Block{Type: label, Bytes: old})...), "more"...),
		} {
			finds(t, s, keyscan.Unnamed, planted{k.class + " as " + name, content})
		}
	}
}

func TestWhatIsNoSecretIsNotFound(t *testing.T) {
	k := samples(t)[0]
	secrets, err := keyscan.Key("key", "k", k.key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(k.key.(*ecdsa.PrivateKey).Public())
	if err != nil {
		t.Fatal(err)
	}
	s := scanner(t, secrets...)
	for name, b := range map[string][]byte{
		"the public key":         public,
		"it in PEM":              pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		"words about keys":       []byte("give PEM that begins with -----BEGIN PRIVATE KEY----- and ends with -----END PRIVATE KEY-----"),
		"half a key":             k.number[:len(k.number)/2],
		"zeros":                  make([]byte, 1<<20),
		"chance":                 random(t, 1<<20),
		"a JWK without a number": []byte(`{"kty":"EC","crv":"P-256","x":"` + strings.Repeat("A", 43) + `"}`),
		"three bytes of gzip":    {0x1f, 0x8b, 8, 0, 0},
	} {
		if got := s.Bytes(name, b); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	if _, err := keyscan.New([]keyscan.Secret{{Class: "short", Value: []byte("0123456789abcde")}}); err == nil {
		t.Error("a secret that is found by chance is looked for")
	}
	if _, err := keyscan.PEM("none", "x", []byte("nothing")); err == nil {
		t.Error("no key is a secret")
	}
	if _, err := keyscan.DER("none", "x", public); err == nil {
		t.Error("a public key is a secret")
	}
}

func TestADirectoryIsReadWhole(t *testing.T) {
	dir, key := t.TempDir(), random(t, 32)
	if err := os.MkdirAll(filepath.Join(dir, "data", "m1"), 0o700); err != nil {
		t.Fatal(err)
	}
	large := make([]byte, 9<<20)
	copy(large[len(large)-40:], key)
	for name, b := range map[string][]byte{"data/m1/large": large, "log": []byte("nothing"), "data/m1/key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, read, err := scanner(t, keyscan.Secret{Class: "key", Name: "k", Value: key}).Dir(dir)
	if err != nil || read != int64(len(large)+len("nothing")+32) {
		t.Errorf("%d bytes, %v", read, err)
	}
	want := []keyscan.Finding{{Where: "data/m1/key", Class: "key", Name: "k", Form: "raw"}, {Where: "data/m1/large", Class: "key", Name: "k", Form: "raw"}}
	if d := cmp.Diff(want, found); d != "" {
		t.Error(d)
	}
	if strings.Contains(fmt.Sprint(found), hex.EncodeToString(key)) {
		t.Error("a finding holds the secret")
	}
	if _, _, err := scanner(t).Dir(filepath.Join(dir, "nowhere")); err != nil {
		t.Errorf("a directory that went away: %v", err)
	}
}

func TestTheTableAllowsWhatItNamesAndNothingThatIsNotThere(t *testing.T) {
	found := []keyscan.Finding{{Where: "data/m1/member.key", Class: "identity"}, {Where: "data/m1/log", Class: "identity"}, {Where: "data/m1/member.key", Class: "KEK"}}
	table := []keyscan.Allowed{
		{Path: "data/m*/member.key", Classes: []string{"identity"}, Reason: "its own"},
		{Path: "data/m*/member.key", Classes: []string{"identity", "token"}, Reason: "too much"},
		{Path: "data/m*/gone", Classes: []string{"identity"}, Reason: "of before"},
	}
	leaks, unused := keyscan.Judge(found, table)
	if d := cmp.Diff(found[1:], leaks); d != "" {
		t.Error(d)
	}
	want := []keyscan.Allowed{{Path: "data/m*/member.key", Classes: []string{"token"}, Reason: "too much"}, table[2]}
	if d := cmp.Diff(want, unused); d != "" {
		t.Error(d)
	}
}
