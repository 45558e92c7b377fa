package keyscan

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/binary"
	"iter"
	"regexp"
	"slices"
)

var (
	pemHeader = []byte("PRIVATE KEY-----")
	// jwkStart begins the secret number in a key as JSON.
	jwkStart = []byte(`"d`)
	// derStarts are the base64 of the first bytes of private keys in DER: P-256 and P-384, Ed25519, P-521 and RSA.
	derStarts = []string{"MIG", "MHc", "MC4", "MIH", "MII"}
	// jwk is that number, escaped or not.
	jwk = regexp.MustCompile(`^"d\\?"\s*:\s*\\?"([A-Za-z0-9_-]{43,700})=*\\?"`)
	// jwkType says that it is a key.
	jwkType = regexp.MustCompile(`\\?"kty\\?"\s*:\s*\\?"(?:EC|RSA|OKP)\\?"`)
)

// maxRun bounds the base64 of a private key.
const maxRun = 8192

// jwkReach is how far from its number a JWK says that it is one.
const jwkReach = 2048

// structures finds whatever parses as a private key.
func (s *Scanner) structures(where string, b []byte, found map[Finding]bool) {
	s.texts(where, b, found)
	for i := 0; i+7 < len(b); i++ {
		if b[i] != 0x30 {
			continue
		}
		if size, ok := sequence(b[i:]); ok {
			s.report(where, parse(b[i:i+size]), "DER", found)
		}
	}
}

// sequence returns the size of an ASN.1 sequence that begins as private keys do: with the version, and then an algorithm
// (PKCS #8), a number (SEC 1) or a modulus (PKCS #1).
func sequence(b []byte) (size int, ok bool) {
	head, n := 2, int(b[1])
	switch b[1] {
	case 0x81:
		head, n = 3, int(b[2])
	case 0x82:
		head, n = 4, int(binary.BigEndian.Uint16(b[2:]))
	default:
		if n > 0x7f {
			return 0, false
		}
	}
	if n < 32 || head+n > len(b) || b[head] != 2 || b[head+1] != 1 || b[head+2] > 1 {
		return 0, false
	}
	next := b[head+3]
	return head + n, next == 0x30 || next == 0x04 || next == 0x02
}

// texts finds private keys that are written as text.
func (s *Scanner) texts(where string, b []byte, found map[Finding]bool) {
	for rest := b; ; {
		i := bytes.Index(rest, pemHeader)
		if i < 0 {
			break
		}
		rest = rest[i+len(pemHeader):]
		end := bytes.Index(rest, []byte("-----"))
		if end < 0 || end > 1<<16 {
			continue
		}
		if der, err := base64.StdEncoding.DecodeString(string(join(rest[:end]))); err == nil && len(der) >= 32 {
			s.report(where, parse(der), "PEM", found)
		}
	}
	for at := 0; at+3 < len(b); at++ {
		i := bytes.IndexByte(b[at:], 'M')
		if i < 0 {
			break
		}
		if at += i; at+3 < len(b) && slices.Contains(derStarts, string(b[at:at+3])) {
			s.report(where, inBase64(run(b[at:])), "DER in base64", found)
		}
	}
	for at := 0; ; at++ {
		i := bytes.Index(b[at:], jwkStart)
		if i < 0 {
			break
		}
		at += i
		m := jwk.FindSubmatch(b[at:min(len(b), at+1024)])
		if m == nil || !jwkType.Match(b[max(0, at-jwkReach):min(len(b), at+jwkReach)]) {
			continue
		}
		if d, err := base64.RawURLEncoding.DecodeString(string(m[1])); err == nil && !s.known[string(d)] {
			found[Finding{where, Unnamed, "", "JWK"}] = true
		}
	}
}

// run is the base64 at the beginning of b.
func run(b []byte) []byte {
	b = b[:min(len(b), maxRun)]
	if end := slices.IndexFunc(b, func(c byte) bool { return !inAlphabet[c] }); end >= 0 {
		b = b[:end]
	}
	return b
}

// leastRun is how many characters of base64 hold the shortest secret.
const leastRun = MinValue * 4 / 3

// decodings yields what every run of base64 in b is, from its first character.
func decodings(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for at := 0; at < len(b); at++ {
			end := at
			for end < len(b) && inAlphabet[b[end]] {
				end++
			}
			if end-at >= leastRun {
				if decoded := decode(b[at:end]); len(decoded) > 0 && !yield(decoded) {
					return
				}
			}
			at = end
		}
	}
}

// inAlphabet are the characters of base64, of both alphabets.
var inAlphabet = func() (in [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_" {
		in[c] = true
	}
	return in
}()

// decode reads a run of base64 as far as it goes.
func decode(run []byte) []byte {
	run = bytes.ReplaceAll(bytes.ReplaceAll(run, []byte("-"), []byte("+")), []byte("_"), []byte("/"))
	if len(run)%4 == 1 {
		run = run[:len(run)-1]
	}
	der, err := base64.RawStdEncoding.DecodeString(string(run))
	if err != nil {
		return nil
	}
	return der
}

// inBase64 is the private key that begins a run of base64.
func inBase64(run []byte) crypto.PrivateKey {
	der := decode(run)
	if len(der) < 8 {
		return nil
	}
	size, ok := sequence(der)
	if !ok {
		return nil
	}
	return parse(der[:size])
}

// report notes a key that is none of the secrets; those are found as what they are.
func (s *Scanner) report(where string, key crypto.PrivateKey, form string, found map[Finding]bool) {
	if key != nil && !s.known[number(key)] {
		found[Finding{where, Unnamed, "", form}] = true
	}
}
