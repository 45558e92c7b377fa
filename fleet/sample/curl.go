package sample

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// plain are options of curl that say nothing about the request.
var plain = []string{
	"-k", "--insecure", "-s", "--silent", "-S", "--show-error", "-i", "--include", "-v", "--verbose", "-L", "--location", "-f", "--fail",
	"-g", "--globoff", "--http1.1", "-N", "--no-buffer", "-#", "--progress-bar", "--path-as-is",
}

// aside are options with a value that say nothing about the request.
var aside = []string{"-o", "--output", "-m", "--max-time", "--connect-timeout", "--resolve", "--cacert", "-w", "--write-out", "--retry", "-x", "--proxy"}

// valued are the options with a value that do, each with its short form.
var valued = map[string]string{
	"--request": "-X", "--header": "-H", "--data": "-d", "--data-raw": "", "--data-ascii": "", "--data-binary": "", "--data-urlencode": "",
	"--user-agent": "-A", "--referer": "-e", "--cookie": "-b", "--user": "-u", "--url": "", "--json": "",
}

// curl is a command line on its way to a request.
type curl struct {
	out    Request
	url    string
	method string
	data   []string
	get    bool
	head   bool
	seen   bool // data was given, although it may be empty
}

// Curl reads a command line of curl, as browsers copy it. Options that change nothing of the request are passed over;
// others, and files, are refused.
func Curl(line string) (Request, error) {
	if len(line) > MaxBytes {
		return Request{}, fleet.NewError(fleet.ErrTooLarge, "curl", "the command line has more than %d bytes", MaxBytes)
	}
	words, err := shellWords(line)
	if err != nil {
		return Request{}, err
	}
	if len(words) == 0 || words[0] != "curl" {
		return Request{}, fleet.Invalid("curl", "this is not a command line of curl: it begins with curl")
	}
	c := curl{out: Request{Proto: "HTTP/1.1", Header: http.Header{"User-Agent": {"curl"}, "Accept": {"*/*"}}}}
	for words = words[1:]; len(words) > 0; {
		if words, err = c.take(words); err != nil {
			return Request{}, err
		}
	}
	return c.request()
}

// take reads the first of words, and the value that it may have.
func (c *curl) take(words []string) (rest []string, err error) {
	word, rest := words[0], words[1:]
	name, value, joined := word, "", false
	switch {
	case !strings.HasPrefix(word, "-") || word == "-":
		return rest, c.setURL(word)
	case strings.HasPrefix(word, "--"):
		name, value, joined = strings.Cut(word, "=")
	case len(word) > 2: // short options may stand together, the last with its value
		name, value, joined = word[:2], word[2:], true
	}
	if slices.Contains(plain, name) {
		if joined {
			return append([]string{"-" + value}, rest...), nil
		}
		return rest, nil
	}
	switch name {
	case "-G", "--get":
		c.get = true
		return rest, nil
	case "-I", "--head":
		c.head = true
		return rest, nil
	case "--compressed":
		c.out.Header.Set("Accept-Encoding", "deflate, gzip, br, zstd")
		return rest, nil
	case "--http2":
		c.out.Proto = "HTTP/2.0"
		return rest, nil
	}
	long, known := longName(name)
	if !known && !slices.Contains(aside, name) {
		return nil, fleet.Invalid("curl", "the option %.40q of curl is not understood here: write the request to a file as it goes over the wire, and give that with --request", name)
	}
	if !joined {
		if len(rest) == 0 {
			return nil, fleet.Invalid("curl", "the option %s of curl has no value", name)
		}
		value, rest = rest[0], rest[1:]
	}
	if !known {
		return rest, nil
	}
	return rest, c.set(long, value)
}

func longName(name string) (string, bool) {
	if _, ok := valued[name]; ok {
		return name, true
	}
	for long, short := range valued {
		if short == name {
			return long, true
		}
	}
	return "", false
}

func (c *curl) setURL(text string) error {
	if c.url != "" {
		return fleet.Invalid("curl", "the command line has two URLs, %.80q and %.80q: one request is explained at a time", c.url, text)
	}
	c.url = text
	return nil
}

func (c *curl) set(option, value string) error {
	h := c.out.Header
	switch option {
	case "--url":
		return c.setURL(value)
	case "--request":
		c.method = value
	case "--header":
		return c.header(value)
	case "--user-agent":
		h.Set("User-Agent", value)
	case "--referer":
		h.Set("Referer", value)
	case "--cookie":
		if !strings.Contains(value, "=") {
			return noFile(option, value)
		}
		h.Set("Cookie", value)
	case "--user":
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(value)))
	case "--json":
		h.Set("Content-Type", "application/json")
		h.Set("Accept", "application/json")
		return c.add(option, value)
	case "--data-urlencode":
		name, content, named := strings.Cut(value, "=")
		switch {
		case !named && strings.Contains(value, "@"):
			return noFile(option, value)
		case !named:
			value = url.QueryEscape(value)
		case name == "":
			value = url.QueryEscape(content)
		default:
			value = name + "=" + url.QueryEscape(content)
		}
		return c.add("--data-raw", value)
	default:
		return c.add(option, value)
	}
	return nil
}

func (c *curl) header(line string) error {
	name, value, ok := strings.Cut(line, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	switch {
	case strings.HasSuffix(line, ";") && !ok:
		c.out.Header.Set(strings.TrimSuffix(line, ";"), "")
	case !ok || name == "":
		return fleet.Invalid("curl", "%.80q is not a header: write -H 'Name: value'", line)
	case value == "":
		c.out.Header.Del(name)
	case strings.EqualFold(name, "Host"):
		c.out.Host = value
	case strings.EqualFold(name, "User-Agent"), strings.EqualFold(name, "Accept"):
		c.out.Header.Set(name, value)
	default:
		c.out.Header.Add(name, value)
	}
	return nil
}

func (c *curl) add(option, value string) error {
	if strings.HasPrefix(value, "@") && option != "--data-raw" {
		return noFile(option, value)
	}
	c.data, c.seen = append(c.data, value), true
	return nil
}

func noFile(option, value string) error {
	return fleet.Invalid("curl", "%s %.80q names a file, which is not read here: write its content, or the whole request to a file for --request", option, value)
}

func (c *curl) request() (Request, error) {
	if c.url == "" {
		return Request{}, fleet.Invalid("curl", "the command line has no URL")
	}
	host := c.out.Host
	if err := c.out.fromURL(c.url); err != nil {
		return Request{}, err
	}
	if host != "" {
		c.out.Host = host
	}
	data := strings.Join(c.data, "&")
	switch {
	case c.get && data != "":
		sep := "?"
		if strings.Contains(c.out.URI, "?") {
			sep = "&"
		}
		c.out.URI += sep + data
	case c.seen:
		c.out.Method, c.out.Body = http.MethodPost, []byte(data)
		if c.out.Header.Get("Content-Type") == "" {
			c.out.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		c.out.length()
	}
	if c.head {
		c.out.Method = http.MethodHead
	}
	if c.method != "" {
		c.out.Method = c.method
	}
	return c.out, c.out.Validate()
}

// shellWords splits a command line as a shell does: quotes of both kinds, $'...' with its escapes, and backslashes.
func shellWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	started := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && i+1 < len(line):
			i++
			if line[i] == '\r' && i+1 < len(line) && line[i+1] == '\n' {
				i++
			}
			if line[i] != '\n' {
				word.WriteByte(line[i])
				started = true
			}
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
		case c == '\'' || c == '"' || c == '$' && i+1 < len(line) && line[i+1] == '\'':
			text, next, err := quoted(line, i)
			if err != nil {
				return nil, err
			}
			word.WriteString(text)
			i, started = next, true
		case strings.IndexByte("|&;<>`", c) >= 0:
			return nil, fleet.Invalid("curl", "%q outside of quotes means something to a shell: give one command line of curl alone", string(c))
		default:
			word.WriteByte(c)
			started = true
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words, nil
}

// quoted reads the quoted text that begins at i, and says where it ends.
func quoted(line string, i int) (text string, end int, err error) {
	kind := line[i]
	if kind == '$' {
		i++
	}
	var b strings.Builder
	for i++; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"' && kind == '"', c == '\'' && kind != '"':
			return b.String(), i, nil
		case c == '\\' && kind == '$' && i+1 < len(line):
			n, width := escape(line[i+1:])
			b.WriteString(n)
			i += width
		case c == '\\' && kind == '"' && i+1 < len(line) && strings.IndexByte("\"\\$`\n", line[i+1]) >= 0:
			if i++; line[i] != '\n' {
				b.WriteByte(line[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, fleet.Invalid("curl", "a quote is not closed")
}

// escape is one escape of $'...' behind its backslash, and how long it was.
func escape(s string) (text string, width int) {
	if at := strings.IndexByte(`abefnrtv`, s[0]); at >= 0 {
		return "\a\b\x1b\f\n\r\t\v"[at : at+1], 1
	}
	digits, most := 0, 0
	switch s[0] {
	case 'x':
		most = 2
	case 'u':
		most = 4
	default:
		return s[:1], 1
	}
	n := rune(0)
	for digits < most && digits+1 < len(s) {
		v := strings.IndexByte("0123456789abcdef", s[digits+1]|0x20)
		if v < 0 {
			break
		}
		n, digits = n<<4|rune(v), digits+1
	}
	switch {
	case digits == 0:
		return s[:1], 1
	case most == 2:
		return string([]byte{byte(n)}), 1 + digits
	}
	return string(n), 1 + digits
}
