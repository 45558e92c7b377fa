package mask_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/mask"
	"github.com/edgefleet/edgefleet/fleet/request"
)

const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!\"#$%&'()+,-./:;<=>?@[]^_`{|}~ é世"

// secret spells 4 to 23 characters of the alphabet from entropy.
func secret(entropy []byte) string {
	runes := []rune(alphabet)
	var out []rune
	for _, b := range entropy[:min(len(entropy), 23)] {
		out = append(out, runes[int(b)%len(runes)])
	}
	return string(out)
}

// carrier puts a secret into a request under a sensitive name.
type carrier func(secret string) (uri, contentType, body string, headers []string)

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

var carriers = map[string]carrier{
	"query": func(s string) (string, string, string, []string) {
		return "/?q=1&password=" + url.QueryEscape(s), "", "", nil
	},
	"query twice": func(s string) (string, string, string, []string) {
		return "/?password=x&password=" + url.QueryEscape(s), "", "", nil
	},
	"form": func(s string) (string, string, string, []string) {
		return "/", form, "a=b&api_key=" + url.QueryEscape(s), nil
	},
	"json": func(s string) (string, string, string, []string) {
		return "/", "application/json", `{"a":[{"user":"x","access_token":` + quote(s) + `}]}`, nil
	},
	"json in json": func(s string) (string, string, string, []string) {
		return "/", "application/json", `{"a":` + quote(`{"secret":`+quote(s)+`}`) + `}`, nil
	},
	"json in a form": func(s string) (string, string, string, []string) {
		return "/", form, "a=" + url.QueryEscape(`{"secret":`+quote(s)+`}`), nil
	},
	"header": func(s string) (string, string, string, []string) { return "/", "", "", []string{"x-aPI-kEY", s} },
	"bearer": func(s string) (string, string, string, []string) {
		return "/", "", "", []string{"Authorization", "Bearer " + strings.TrimSpace(s)}
	},
	"basic": func(s string) (string, string, string, []string) {
		return "/", "", "", []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+s))}
	},
	"cookie": func(s string) (string, string, string, []string) {
		return "/", "", "", []string{"Cookie", "theme=1; SID=" + strings.ReplaceAll(s, ";", "x")}
	},
	"multipart": func(s string) (string, string, string, []string) {
		return "/", "multipart/form-data; boundary=b0undary", "--b0undary\r\nContent-Disposition: form-data; name=\"pwd\"\r\n\r\n" + s + "\r\n--b0undary--\r\n", nil
	},
}

// sent is the secret as the carrier could transport it.
func sent(carrier, s string) string {
	switch carrier {
	case "cookie":
		s = strings.Trim(strings.TrimSpace(strings.ReplaceAll(s, ";", "x")), `"`)
	case "bearer":
		s = strings.TrimSpace(s)
	}
	return s
}

// written are ways in which a secret may come up again in a text.
func written(s string) map[string]string {
	everyByte := strings.ToUpper(hex.EncodeToString([]byte(s)))
	var percent strings.Builder
	for i := 0; i < len(everyByte); i += 2 {
		percent.WriteString("%" + everyByte[i:i+2])
	}
	quoted := quote(s)
	return map[string]string{
		"plain": s, "query-escaped": url.QueryEscape(s), "path-escaped": url.PathEscape(s), "lower hex": strings.ToLower(url.QueryEscape(s)),
		"every byte escaped": percent.String(), "doubly escaped": url.QueryEscape(url.QueryEscape(s)), "json": quoted[1 : len(quoted)-1],
		"base64": base64.StdEncoding.EncodeToString([]byte(s)), "base64url": base64.RawURLEncoding.EncodeToString([]byte(s)),
		"base64 among others":   base64.StdEncoding.EncodeToString([]byte("user:" + s + "!")),
		"base64 at offset two":  base64.StdEncoding.EncodeToString([]byte("us" + s + "!!")),
		"base64url among other": base64.RawURLEncoding.EncodeToString([]byte("a" + s + "??")),
	}
}

func FuzzSecretsNeverLeave(f *testing.F) {
	for seed := range 60 {
		entropy := sha256.Sum256([]byte{byte(seed)})
		f.Add(entropy[:4+seed%20])
	}
	f.Fuzz(func(t *testing.T, entropy []byte) {
		for name, carry := range carriers {
			secret := secret(entropy)
			uri, contentType, body, headers := carry(secret)
			secret = sent(name, secret)
			if len(secret) < 4 {
				continue
			}
			r := parse(uri, contentType, body, append(headers, "User-Agent", "x")...)
			m := mask.Default().Apply(r)
			for kind, text := range written(secret) {
				for _, out := range outputs(m, r, fmt.Sprintf("before %s after", text), "/a/"+text+"/b") {
					if strings.Contains(out, text) || strings.Contains(out, secret) {
						t.Fatalf("%s: the secret %q leaves, %s, in %q", name, secret, kind, out)
					}
				}
			}
		}
	})
}

// outputs is everything that a masker says about r.
func outputs(m *mask.Masker, r *request.Request, text, path string) []string {
	out := []string{m.String(text), m.Path(path), m.URI(path + "?x=" + path), m.URI(r.Input().URI), m.Excerpt(fleet.Point{{"header", "REFERER"}}, text)}
	for _, v := range r.All() {
		out = append(out, m.Excerpt(v.Point, v.Value), m.Excerpt(v.Point, v.Raw), m.String(v.Name), m.String(request.PointString(v.Point)))
	}
	return append(out, m.Points()...)
}

func FuzzMasker(f *testing.F) {
	f.Add("/?password=a%20b&x=1", form, "token=%3d&a=b", "text a b", "Basic dXNlcjpodW50ZXIy")
	f.Add("http://u:p@h/", "application/json", `{"a":{"pwd":"\u0041"}}`, `\u0041`, "Bearer x")
	f.Fuzz(func(t *testing.T, uri, contentType, body, text, authorization string) {
		r := parse(uri, contentType, body, "Authorization", authorization)
		m := mask.Default().Apply(r)
		for _, out := range outputs(m, r, text, text) {
			if len(authorization) >= 4 && strings.Contains(out, authorization) {
				t.Fatalf("the authorization %q leaves in %q", authorization, out)
			}
		}
	})
}
