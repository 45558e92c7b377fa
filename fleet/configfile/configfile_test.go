package configfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/configfile"
)

type config struct {
	Name    string            `yaml:"name"`
	Timeout time.Duration     `yaml:"timeout"`
	Listen  []string          `yaml:"listen"`
	Labels  map[string]string `yaml:"labels"`
	WAF     struct {
		Paranoia int  `yaml:"paranoia"`
		Strict   bool `yaml:"strict"`
	} `yaml:"waf"`
}

func fine() error { return nil }

func TestEveryKindOfSettingIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	content := "# a comment\nname: edge 1\ntimeout: 1m30s\nlisten:\n  - 127.0.0.1:1\n  - '[::1]:2'\nlabels: {a: b}\nwaf:\n  paranoia: 2\n  strict: true\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	want := config{Name: "edge 1", Timeout: 90 * time.Second, Listen: []string{"127.0.0.1:1", "[::1]:2"}, Labels: map[string]string{"a": "b"}}
	want.WAF.Paranoia, want.WAF.Strict = 2, true
	var got config
	if err := configfile.Load(path, &got, fine); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatTheFileLeavesOutKeepsItsDefault(t *testing.T) {
	for _, content := range []string{"", "# nothing\n", "---\n", "waf:\n  paranoia: 1\n"} {
		c := config{Name: "default"}
		if err := configfile.Parse("c.yaml", []byte(content), &c, fine); err != nil {
			t.Errorf("%q: %v", content, err)
		}
		if c.Name != "default" {
			t.Errorf("%q: name is %q", content, c.Name)
		}
	}
}

func TestMistakesAreNamedWithFileLineAndField(t *testing.T) {
	for name, tc := range map[string]struct{ content, field, says string }{
		"an unknown field":           {"name: a\nnick: b\n", "", `c.yaml:2: unknown field "nick"`},
		"an unknown field deep down": {"name: a\nwaf:\n  paranoia: 1\n  paranoid: 2\n", "", `c.yaml:4: unknown field "paranoid"`},
		"a field twice":              {"name: a\nname: b\n", "", "c.yaml:2"},
		"text for a number":          {"name: a\nwaf:\n  paranoia: high\n", "paranoia", "c.yaml:3: paranoia: "},
		"a list for text":            {"name: [a]\n", "name", "c.yaml:1: name: "},
		"a number for a duration":    {"name: a\ntimeout: soon\n", "timeout", "c.yaml:2: timeout: "},
		"a list for the whole":       {"- a\n", "", "c.yaml"},
		"a tab":                      {"waf:\n\tparanoia: 1\n", "", "c.yaml:2"},
		"a quote left open":          {"name: \"a\n", "", "c.yaml:1"},
		"a second document":          {"name: a\n---\nname: b\n", "", "c.yaml"},
		"bytes that are no text":     {"name: \x00\x01\xff\n", "", "c.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			var c config
			err := configfile.Parse("c.yaml", []byte(tc.content), &c, fine)
			var e *fleet.Error
			if !errors.As(err, &e) || !errors.Is(err, fleet.ErrInvalid) {
				t.Fatalf("got %v with %+v", err, c)
			}
			if !strings.HasPrefix(e.Message, tc.says) || strings.ContainsAny(e.Message, "\n\x00") {
				t.Errorf("%q does not begin with %q, or is no single line", e.Message, tc.says)
			}
			if tc.field != "" && e.Field != tc.field {
				t.Errorf("field is %q, want %q", e.Field, tc.field)
			}
		})
	}
}

func TestAFailedCheckIsLocated(t *testing.T) {
	content := []byte("name: a\n\nwaf:\n  # how strict\n  paranoia: 9\nlisten:\n  - a\n  - b\n")
	for field, says := range map[string]string{
		"waf.paranoia": "c.yaml:5: waf.paranoia: 9 is too much",
		"name":         "c.yaml:1: name: 9 is too much",
		"listen[1]":    "c.yaml:8: listen[1]: 9 is too much",
		"waf.missing":  "c.yaml:1: waf.missing: 9 is too much",
		"":             "c.yaml:1: ",
		"$[*..":        "c.yaml:1: ",
	} {
		var c config
		err := configfile.Parse("c.yaml", content, &c, func() error { return fleet.Invalid(field, "9 is too much") })
		var e *fleet.Error
		if !errors.As(err, &e) || !strings.HasPrefix(e.Message, says) || e.Field != field {
			t.Errorf("%q: %v", field, err)
		}
	}
	var c config
	err := configfile.Parse("c.yaml", content, &c, func() error { return fleet.Invalid("name", "first\nsecond") })
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	other := errors.New("disk on fire")
	if err := configfile.Parse("c.yaml", content, &c, func() error { return other }); !errors.Is(err, other) {
		t.Errorf("got %v", err)
	}
}

func TestWhatCannotBeReadIsRefused(t *testing.T) {
	var c config
	missing := filepath.Join(t.TempDir(), "none.yaml")
	if err := configfile.Load(missing, &c, fine); !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v", err)
	}
	if err := configfile.Load(t.TempDir(), &c, fine); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a directory: %v", err)
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(big, []byte("# "+strings.Repeat("x", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := configfile.Load(big, &c, fine); !errors.Is(err, fleet.ErrTooLarge) {
		t.Errorf("a large file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"name: a\nwaf:\n  paranoia: 1\n", "a: &a [*a]", "name: !!binary x", "? {}\n: x", "name: |\n  a\n", "<<: {name: a}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c config
		err := configfile.Parse("c.yaml", b, &c, func() error { return fleet.Invalid("waf.paranoia", "no") })
		if err == nil {
			t.Fatal("a failed check was lost")
		}
		if strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("more than one line: %q", err)
		}
	})
}
