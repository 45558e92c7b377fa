package quality_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"testing"

	"github.com/corazawaf/coraza-coreruleset/v4/tests"
	"github.com/goccy/go-yaml"
)

// suiteTest is one test of the core rule set's regression suite.
type suiteTest struct {
	// id is rule and number, such as 942100-3; directory is the family of rules.
	id, directory string
	stages        []stage
}

type stage struct {
	Input  input  `yaml:"input"`
	Output output `yaml:"output"`
}

type input struct {
	Method         *string       `yaml:"method"`
	URI            *string       `yaml:"uri"`
	Version        *string       `yaml:"version"`
	Headers        yaml.MapSlice `yaml:"headers"`
	Data           string        `yaml:"data"`
	EncodedRequest string        `yaml:"encoded_request"`
	Autocomplete   *bool         `yaml:"autocomplete_headers"`
}

type output struct {
	Status      int  `yaml:"status"`
	ExpectError bool `yaml:"expect_error"`
	Log         struct {
		ExpectIDs    []int  `yaml:"expect_ids"`
		NoExpectIDs  []int  `yaml:"no_expect_ids"`
		MatchRegex   string `yaml:"match_regex"`
		NoMatchRegex string `yaml:"no_match_regex"`
	} `yaml:"log"`
}

// readSuite reads the whole suite, in the order of its files.
func readSuite(t testing.TB) []suiteTest {
	t.Helper()
	var all []suiteTest
	err := fs.WalkDir(tests.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		text, err := fs.ReadFile(tests.FS, path)
		if err != nil {
			return err
		}
		var file struct {
			RuleID int `yaml:"rule_id"`
			Tests  []struct {
				ID     int     `yaml:"test_id"`
				Stages []stage `yaml:"stages"`
			} `yaml:"tests"`
		}
		if err := yaml.Unmarshal(text, &file); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		directory, _, _ := strings.Cut(path, "/")
		for _, test := range file.Tests {
			all = append(all, suiteTest{id: fmt.Sprintf("%d-%d", file.RuleID, test.ID), directory: directory, stages: test.Stages})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

const formType = "application/x-www-form-urlencoded"

// raw builds the bytes of a request as the suite's own runner does: without autocompletion nothing is added. The suite's
// host has one label, which an edge cannot serve; host takes its place.
func (in input) raw(host string) ([]byte, error) {
	if in.EncodedRequest != "" {
		raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(in.EncodedRequest), ""))
		if err != nil {
			return nil, fmt.Errorf("encoded request: %w", err)
		}
		return bytes.Replace(raw, []byte("Host: localhost\r\n"), []byte("Host: "+host+"\r\n"), 1), nil
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s\r\n", deref(in.Method, "GET"), deref(in.URI, "/"), deref(in.Version, "HTTP/1.1"))
	seen := map[string]string{}
	for _, h := range in.Headers {
		name, value := fmt.Sprint(h.Key), fmt.Sprint(h.Value)
		if h.Value == nil {
			value = ""
		}
		if strings.EqualFold(name, "Host") && value == "localhost" {
			value = host
		}
		if strings.EqualFold(name, "Referer") {
			value = strings.Replace(value, "://localhost/", "://"+host+"/", 1)
		}
		seen[strings.ToLower(name)] = value
		fmt.Fprintf(&b, "%s: %s\r\n", name, value)
	}
	complete := in.Autocomplete == nil || *in.Autocomplete
	add := func(name, value string) {
		if _, given := seen[strings.ToLower(name)]; !given {
			seen[strings.ToLower(name)] = value
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
	}
	data := in.Data
	if data != "" && complete {
		add("Content-Type", formType)
		if seen["content-type"] == formType {
			data = encodeForm(data)
		}
	}
	if strings.HasPrefix(seen["content-type"], "multipart/form-data;") {
		data = strings.ReplaceAll(data, "\n", "\r\n")
	}
	if complete {
		add("Connection", "close")
		switch method := deref(in.Method, "GET"); {
		case data != "", strings.HasPrefix(method, "POST"), method == "PUT", method == "PATCH", method == "DELETE":
			add("Content-Length", fmt.Sprint(len(data)))
		}
	}
	b.WriteString("\r\n" + data)
	return b.Bytes(), nil
}

func deref(s *string, otherwise string) string {
	if s == nil {
		return otherwise
	}
	return *s
}

// encodeForm encodes a form that is written without encodings.
func encodeForm(data string) string {
	if plain, err := url.QueryUnescape(data); err != nil || plain != data {
		return data
	}
	var pairs []string
	for pair := range strings.SplitSeq(data, "&") {
		name, value, found := strings.Cut(pair, "=")
		pair = url.QueryEscape(name)
		if found {
			pair += "=" + url.QueryEscape(value)
		}
		pairs = append(pairs, pair)
	}
	return strings.Join(pairs, "&")
}
