package dns

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

// Key is a TSIG key (RFC 8945). It writes itself as its name, so that its secret is in no log.
type Key struct {
	// Name and Algorithm are as TSIG records have them: lower case, with the final dot.
	Name, Algorithm string
	secret          string
}

// String is the key's name.
func (k Key) String() string { return k.Name }

// GoString is the key's name.
func (k Key) GoString() string { return k.Name }

// secrets is what the library verifies and signs with.
func (k Key) secrets() map[string]string { return map[string]string{k.Name: k.secret} }

// maxKeyFile bounds a key file, minSecret the bytes of a secret.
const (
	maxKeyFile = 4 << 10
	minSecret  = 16
)

// algorithms are those that a key may have; MD5 and SHA-1 are not among them.
var algorithms = map[string]string{
	"hmac-sha224": dns.HmacSHA224, "hmac-sha256": dns.HmacSHA256, "hmac-sha384": dns.HmacSHA384, "hmac-sha512": dns.HmacSHA512,
}

// ReadKey reads a key from a file of tsig-keygen's form, which other users of the machine must not be able to read.
func ReadKey(path string) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("read TSIG key: %w", err)
	}
	defer func() { _ = f.Close() }() // it is read only
	st, err := f.Stat()
	if err != nil {
		return Key{}, fmt.Errorf("read TSIG key: %w", err)
	}
	if st.Mode().Perm()&0o007 != 0 {
		return Key{}, fleet.Invalid("tsig_key_file", "every user of this machine can read %s: chmod o= %[1]s", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return Key{}, fmt.Errorf("read TSIG key %s: %w", path, err)
	}
	k, err := ParseKey(b)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// ParseKey reads a key as tsig-keygen writes it: key "name" { algorithm hmac-sha256; secret "base64"; };. No error holds
// any of it.
func ParseKey(b []byte) (Key, error) {
	bad := func(what string) (Key, error) {
		return Key{}, fleet.Invalid("tsig_key_file", "%s: make a key with tsig-keygen -a hmac-sha256 NAME", what)
	}
	if len(b) > maxKeyFile {
		return bad(fmt.Sprintf("it has more than %d bytes", maxKeyFile))
	}
	words := keyWords(string(b))
	if len(words) < 4 || words[0] != "key" || words[2] != "{" {
		return bad("it does not begin with: key NAME {")
	}
	k := Key{Name: dns.CanonicalName(words[1])}
	if _, ok := dns.IsDomainName(k.Name); !ok || k.Name == "." {
		return bad("the key's name is not a DNS name")
	}
	rest := words[3:]
	for len(rest) >= 3 && rest[2] == ";" && rest[0] != "}" {
		switch rest[0] {
		case "algorithm":
			k.Algorithm = algorithms[strings.ToLower(rest[1])]
		case "secret":
			k.secret = rest[1]
		default:
			return bad("it has more than an algorithm and a secret")
		}
		rest = rest[3:]
	}
	if len(rest) == 0 || rest[0] != "}" || len(rest) > 2 || len(rest) == 2 && rest[1] != ";" {
		return bad("it does not end after one key")
	}
	if k.Algorithm == "" {
		return bad("its algorithm is none of hmac-sha224, hmac-sha256, hmac-sha384 and hmac-sha512")
	}
	if raw, err := base64.StdEncoding.DecodeString(k.secret); err != nil || len(raw) < minSecret {
		return bad(fmt.Sprintf("its secret is not %d bytes or more in base64", minSecret))
	}
	return k, nil
}

// keyWords are the words of a key file: what is between white space, and each of { } ; without its quotes and comments.
func keyWords(text string) []string {
	var words []string
	for line := range strings.Lines(text) {
		if i := strings.Index(line, "#"); i >= 0 {
			line = line[:i]
		}
		if i := strings.Index(line, "//"); i >= 0 && strings.TrimSpace(line[:i]) == "" { // base64 has slashes too
			line = line[:i]
		}
		line = strings.NewReplacer("{", " { ", "}", " } ", ";", " ; ", `"`, " ").Replace(line)
		words = append(words, strings.Fields(line)...)
	}
	return words
}
