package quality_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// request is one of a corpus.
type request struct {
	// group is what figures are given by: a category of benign requests, or a placement of attacks.
	group, name          string
	method, target, kind string
	headers              []string
	body                 string
	attack               bool
}

// usual are the headers of a browser; those of a request take their place.
var usual = []string{
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.0.0 Safari/537.36",
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
	"Accept-Language: en-US,en;q=0.9",
}

func (r request) raw() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", r.method, r.target, hostName)
	has := func(h string) bool {
		name, _, _ := strings.Cut(h, ":")
		for _, own := range r.headers {
			if n, _, _ := strings.Cut(own, ":"); strings.EqualFold(n, name) {
				return true
			}
		}
		return false
	}
	for _, h := range usual {
		if !has(h) {
			b.WriteString(h + "\r\n")
		}
	}
	for _, h := range r.headers {
		b.WriteString(h + "\r\n")
	}
	if r.kind != "" && !has("Content-Type:") {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", r.kind)
	}
	if r.body != "" || r.method == "POST" || r.method == "PUT" || r.method == "PATCH" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.body))
	}
	b.WriteString("\r\n" + r.body)
	return b.Bytes()
}

// readBenign reads the benign requests in dir. A file is a category; a line begins a request (method and target), adds a header to it
// (+) or its body (>), names places (in), or is a value that makes one request in each of them (=).
func readBenign(t testing.TB, dir string) []request {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	var all []request
	for _, file := range files {
		category := strings.TrimSuffix(filepath.Base(file), ".txt")
		var places []string
		for n, line := range readLines(t, file) {
			mark, rest, _ := strings.Cut(line, " ")
			switch mark {
			case "in":
				places = strings.Fields(rest)
			case "=":
				for _, p := range places {
					kind, name, _ := strings.Cut(p, ":")
					r := place(kind, name, unescape(t, rest))
					r.group, r.name = category, fmt.Sprintf("%s in %s", rest, p)
					all = append(all, r)
				}
			case "+":
				last := &all[len(all)-1]
				last.headers = append(last.headers, rest)
			case ">":
				all[len(all)-1].setBody(t, rest)
			default:
				if rest == "" || strings.ContainsAny(rest, " ") {
					t.Fatalf("%s:%d: %q: a target has no spaces", file, n+1, line)
				}
				all = append(all, request{group: category, name: line, method: mark, target: rest})
			}
		}
	}
	return all
}

func readLines(t testing.TB, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var all []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		if line := s.Text(); line != "" && !strings.HasPrefix(line, "# ") {
			all = append(all, line)
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// unescape reads \n, \t, \r, \\ and \xNN, which a line cannot hold.
func unescape(t testing.TB, s string) string {
	t.Helper()
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case 'x':
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				t.Fatal(err)
			}
			b.WriteByte(byte(n))
			i += 2
		case '\\':
			b.WriteByte('\\')
		default:
			b.WriteString(s[i-1 : i+1])
		}
	}
	return b.String()
}

func (r *request) setBody(t testing.TB, text string) {
	t.Helper()
	kind, body, _ := strings.Cut(text, " ")
	switch kind {
	case "json": // its escapes are JSON's
		r.kind, r.body = "application/json", body
		if !json.Valid([]byte(body)) {
			t.Fatalf("%s: not JSON: %s", r.name, body)
		}
	case "form":
		r.kind, r.body = formType, body
	case "raw":
		r.kind, r.body = "", unescape(t, body)
		if strings.HasPrefix(body, "{") || strings.HasPrefix(body, "[") {
			r.body = strings.ReplaceAll(body, `}\n`, "}\n")
		}
	case "multipart":
		r.multipart(t, body)
	default:
		t.Fatalf("%s: %q is not a kind of body", r.name, kind)
	}
}

const boundary = "----WebKitFormBoundary7MA4YWxkTrZu0gW"

// multipart reads fields such as title=text and file=@name:type:content.
func (r *request) multipart(t testing.TB, text string) {
	t.Helper()
	var b strings.Builder
	for field := range strings.SplitSeq(text, " && ") {
		name, value, _ := strings.Cut(field, "=")
		file, isFile := strings.CutPrefix(value, "@")
		if !isFile {
			part(&b, name, "", "", unescape(t, value))
			continue
		}
		parts := strings.SplitN(file, ":", 3)
		part(&b, name, parts[0], parts[1], unescape(t, parts[2]))
	}
	r.kind, r.body = "multipart/form-data; boundary="+boundary, b.String()+"--"+boundary+"--\r\n"
}

func part(b *strings.Builder, name, file, kind, content string) {
	fmt.Fprintf(b, "--%s\r\nContent-Disposition: form-data; name=\"%s\"", boundary, name)
	if file != "" {
		fmt.Fprintf(b, "; filename=\"%s\"\r\nContent-Type: %s", file, kind)
	}
	b.WriteString("\r\n\r\n" + content + "\r\n")
}

// place puts a value where requests carry values.
func place(kind, name, value string) request {
	switch kind {
	case "query":
		return request{method: "GET", target: "/search?" + url.QueryEscape(name) + "=" + url.QueryEscape(value) + "&page=1"}
	case "path":
		return request{method: "GET", target: "/items/" + url.PathEscape(value) + "/view"}
	case "form":
		return request{method: "POST", target: "/submit", kind: formType, body: url.Values{name: {value}, "token": {"8f14e45f"}}.Encode()}
	case "json":
		return jsonRequest(name, value)
	case "multipart":
		var b strings.Builder
		part(&b, name, "", "", value)
		part(&b, "page", "", "", "1")
		return request{method: "POST", target: "/submit", kind: "multipart/form-data; boundary=" + boundary, body: b.String() + "--" + boundary + "--\r\n"}
	case "header":
		return request{method: "GET", target: "/", headers: []string{name + ": " + oneLine(value)}}
	case "cookie": // the value is the whole header
		return request{method: "GET", target: "/", headers: []string{"Cookie: " + oneLine(value)}}
	}
	panic("no such place: " + kind)
}

// jsonRequest nests value below the dots of name.
func jsonRequest(name, value string) request {
	var doc any = value
	names := strings.Split(name, ".")
	for _, n := range slices.Backward(names) {
		doc = map[string]any{n: doc}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err) // maps of strings
	}
	return request{method: "POST", target: "/api/v1/items", kind: "application/json", body: string(b)}
}

// oneLine is value as a header can hold it.
func oneLine(value string) string {
	return strings.NewReplacer("\r", "", "\n", " ").Replace(value)
}
