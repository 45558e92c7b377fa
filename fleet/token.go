package fleet

import (
	"fmt"
	"hash/crc32"
	"strings"
	"time"
)

// TokenPrefix starts the text of every API token: eft1.<id>.<secret><checksum>. A scanner finds leaked ones by
// eft1\.tok-[0-9a-f]{16}\.[A-Za-z0-9_-]{43}[0-9a-f]{8}.
const TokenPrefix = "eft1"

const (
	// secretLength is 256 random bits as base64url without padding.
	secretLength = 43
	// checksumLength is a CRC-32 (IEEE) of all before it, as hex.
	checksumLength = 8
	maxTokenText   = 256
)

// FormatToken is the text of a token, shown once.
func FormatToken(id TokenID, secret string) string {
	s := TokenPrefix + "." + string(id) + "." + secret
	return s + checksum(s)
}

func checksum(s string) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(s))) }

// ParseToken takes the text of a token apart. It fails for what cannot be a token, however its secret is: a typo is
// found without asking anybody.
func ParseToken(text string) (id TokenID, secret string, err error) {
	parts := strings.Split(text, ".")
	if len(text) > maxTokenText || len(parts) != 3 || parts[0] != TokenPrefix || !validID(parts[1]) {
		return "", "", NewError(ErrUnauthenticated, "token", "this is not an API token: one starts with %s. and has three parts", TokenPrefix)
	}
	if len(parts[2]) != secretLength+checksumLength {
		return "", "", NewError(ErrUnauthenticated, "token", "the API token is not complete, or has something after its end: copy it again")
	}
	end := len(text) - checksumLength
	if checksum(text[:end]) != text[end:] {
		return "", "", NewError(ErrUnauthenticated, "token", "the API token is mistyped: its checksum does not match; copy it again")
	}
	return TokenID(parts[1]), parts[2][:secretLength], nil
}

// Mistyped reports whether text has the shape of a token whose checksum does not match.
func Mistyped(text string) bool {
	i := strings.LastIndexByte(text, '.')
	_, _, err := ParseToken(text)
	return err != nil && strings.HasPrefix(text, TokenPrefix+".") && len(text)-i-1 == secretLength+checksumLength
}

// Ended reports whether the token's life is over.
func (t Token) Ended(now time.Time) bool { return !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt) }

// Idle reports whether nobody used the token since the given time.
func (t Token) Idle(since time.Time) bool { return later(t.LastUsedAt, t.CreatedAt).Before(since) }

// Own reports whether nobody but its owner knew the token when it was made. Only such a token speaks for a person where
// two persons are needed.
func (t Token) Own() bool { return t.Owner != "" && t.MadeBy == t.Owner }

func (t Token) validateAccess() error {
	if t.Owner != "" {
		if _, tenant := t.Owner.Split(); tenant != t.Tenant {
			return Invalid("owner", "user %s is not of the token's scope", t.Owner)
		}
	}
	return validatePermissions(t.Permissions, t.Tenant)
}
