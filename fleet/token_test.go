package fleet_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
)

var secret = strings.Repeat("aB3-_", 9)[:43]

func TestTheTextOfATokenIsRecognisedAndATypoIsFound(t *testing.T) {
	text := fleet.FormatToken("tok-0123456789abcdef", secret)
	if !regexp.MustCompile(`^eft1\.tok-[0-9a-f]{16}\.[A-Za-z0-9_-]{43}[0-9a-f]{8}$`).MatchString(text) {
		t.Errorf("%q is not what a scanner for leaked tokens looks for", text)
	}
	id, got, err := fleet.ParseToken(text)
	if id != "tok-0123456789abcdef" || got != secret || err != nil {
		t.Errorf("got %q, %q, %v", id, got, err)
	}
	// One wrong character, wherever it is, and two neighbours that are swapped.
	for i := range text {
		typo := []byte(text)
		typo[i] ^= 1
		if _, _, err := fleet.ParseToken(string(typo)); !errors.Is(err, fleet.ErrUnauthenticated) {
			t.Errorf("%q is taken for a token", typo)
		}
		if i > 0 && text[i] != text[i-1] {
			swapped := []byte(text)
			swapped[i], swapped[i-1] = swapped[i-1], swapped[i]
			if _, _, err := fleet.ParseToken(string(swapped)); err == nil {
				t.Errorf("%q is taken for a token", swapped)
			}
		}
	}
	for name, tc := range map[string]struct {
		text     string
		mistyped bool
	}{
		"whole":            {text, false},
		"a wrong secret":   {text[:40] + "X" + text[41:], true},
		"cut off":          {text[:len(text)-1], false},
		"of another kind":  {"efn1" + text[4:], false},
		"nothing":          {"", false},
		"without its id":   {"eft1.." + text[26:], true},
		"far too long":     {text + strings.Repeat("a", 300), false},
		"with a line feed": {text + "\n", false},
	} {
		if got := fleet.Mistyped(tc.text); got != tc.mistyped {
			t.Errorf("%s: mistyped is %t", name, got)
		}
		if _, _, err := fleet.ParseToken(tc.text); (err == nil) != (name == "whole") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	good := fleet.FormatToken("tok-1", secret)
	for _, s := range []string{good, good + "x", good[1:], "eft1..", "eft1.tok-1.", "...", strings.ToUpper(good), "Bearer " + good} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, got, err := fleet.ParseToken(text)
		if err != nil {
			if !errors.Is(err, fleet.ErrUnauthenticated) || id != "" || got != "" {
				t.Errorf("%q: %q, %q, %v", text, id, got, err)
			}
			if len(text) > 8 && strings.Contains(err.Error(), text) {
				t.Errorf("the error shows the token: %v", err)
			}
			return
		}
		if fleet.FormatToken(id, got) != text || fleet.Mistyped(text) {
			t.Errorf("%q is %q and %q", text, id, got)
		}
	})
}
