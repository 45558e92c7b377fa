package keyscan

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strconv"
	"strings"
)

// form is a value as it could be written.
type form struct {
	name  string
	bytes []byte
}

// Key makes the secrets of a private key: its number (both primes too for RSA) and its encodings.
func Key(class, name string, key crypto.PrivateKey) ([]Secret, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", class, name, err)
	}
	out := []Secret{{class, name, der}, {class, name, []byte(number(key))}}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		if der, err = x509.MarshalECPrivateKey(k); err != nil {
			return nil, fmt.Errorf("%s %s: %w", class, name, err)
		}
		out = append(out, Secret{class, name, der})
	case *rsa.PrivateKey:
		out = append(out, Secret{class, name, x509.MarshalPKCS1PrivateKey(k)}, Secret{class, name, k.Primes[0].Bytes()}, Secret{class, name, k.Primes[1].Bytes()})
	}
	return out, nil
}

// DER is Key for a key in PKCS #8, SEC 1 or PKCS #1.
func DER(class, name string, der []byte) ([]Secret, error) {
	key := parse(der)
	if key == nil {
		return nil, fmt.Errorf("%s %s: %d bytes that are no private key", class, name, len(der))
	}
	return Key(class, name, key)
}

// PEM is Key for all private keys of a text; one without any is an error.
func PEM(class, name string, text []byte) (out []Secret, err error) {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		if key := parse(b.Bytes); key != nil {
			secrets, err := Key(class, name, key)
			if err != nil {
				return nil, err
			}
			out = append(out, secrets...)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s %s: no private key in PEM", class, name)
	}
	return out, nil
}

// parse reads a private key; nil if b is none.
func parse(b []byte) crypto.PrivateKey {
	if k, err := x509.ParsePKCS8PrivateKey(b); err == nil {
		return k
	}
	if k, err := x509.ParseECPrivateKey(b); err == nil {
		return k
	}
	if k, err := x509.ParsePKCS1PrivateKey(b); err == nil {
		return k
	}
	return nil
}

// number is the secret number of a private key.
func number(key crypto.PrivateKey) string {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		b, err := k.Bytes()
		if err != nil {
			return ""
		}
		return string(b)
	case ed25519.PrivateKey:
		return string(k.Seed())
	case *rsa.PrivateKey:
		return string(k.D.Bytes())
	case interface{ Bytes() []byte }: // of ECDH
		return string(k.Bytes())
	}
	return ""
}

// encodings are a value, and what a program would make of it before it writes it: PEM of a key's DER.
func encodings(value []byte) []form {
	out := []form{{"", value}}
	if parse(value) != nil {
		for _, label := range []string{"PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"} {
			out = append(out, form{label + " in PEM", pem.EncodeToMemory(&pem.Block{Type: label, Bytes: value})})
		}
	}
	return out
}

// forms are how bytes could be written.
func forms(value []byte) []form {
	lower := hex.EncodeToString(value)
	out := []form{{"raw", value}, {"hex", []byte(lower)}, {"hex", []byte(strings.ToUpper(lower))}}
	colons := strings.ReplaceAll(fmt.Sprintf("% x", value), " ", ":")
	out = append(out, form{"hex with colons", []byte(colons)}, form{"hex with colons", []byte(strings.ToUpper(colons))})
	decimal := strings.Trim(fmt.Sprintf("%d", value), "[]")
	out = append(out, form{"decimal bytes", []byte(decimal)}, form{"decimal bytes", []byte(strings.ReplaceAll(decimal, " ", ","))}, form{"decimal bytes", []byte(strings.ReplaceAll(decimal, " ", ", "))})
	if quoted := strconv.Quote(string(value)); len(quoted) > len(value)+2 {
		out = append(out, form{"quoted", []byte(quoted[1 : len(quoted)-1])})
	}
	for pad := range 3 {
		out = append(out, form{"base64", aligned(base64.StdEncoding, value, pad)}, form{"base64url", aligned(base64.URLEncoding, value, pad)})
	}
	return out
}

// aligned is what base64 makes of value behind pad other bytes, without the characters that depend on its neighbours.
func aligned(e *base64.Encoding, value []byte, pad int) []byte {
	text := e.EncodeToString(append(bytes.Repeat([]byte{0}, pad), value...))
	skip := []int{0, 2, 3}[pad]
	end := len(text)
	if rest := (pad + len(value)) % 3; rest != 0 {
		end -= 4 - rest // the padding, and the character that holds bits of what follows
	}
	return []byte(text[skip:end])
}
