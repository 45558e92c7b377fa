package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// maxDepth bounds the nesting of a request's body; the deepest that the API takes has fewer than 8 levels.
const maxDepth = 32

// unmarshal is json.Unmarshal that refuses an object with a name twice. Which of the two counts depends on the reader:
// what was validated would not be what is used. Names that differ in case only are the same name to encoding/json.
func unmarshal(b []byte, v any) error {
	if _, first := v.(*any); first { // huma decodes each body twice: into any to validate it, then into its type
		if err := checkNames(b); err != nil {
			return err
		}
	}
	return json.Unmarshal(b, v)
}

// checkNames finds duplicate names; other defects of b are for json.Unmarshal to find.
func checkNames(b []byte) error {
	type level struct {
		names map[string]bool // nil in an array
		key   bool            // the next token is a name
	}
	var open []level
	dec := json.NewDecoder(bytes.NewReader(b))
	for {
		tok, err := dec.Token()
		if err != nil {
			return nil //nolint:nilerr // the end, or not JSON, which json.Unmarshal says better
		}
		top := len(open) - 1
		if name, ok := tok.(string); ok && top >= 0 && open[top].key {
			fold := strings.ToLower(name)
			if open[top].names[fold] {
				return fmt.Errorf("the name %.64q is there twice in one object", name)
			}
			open[top].names[fold], open[top].key = true, false
			continue
		}
		if top >= 0 && open[top].names != nil {
			open[top].key = true // after the value that starts or is this token
		}
		switch tok {
		case json.Delim('{'):
			open = append(open, level{names: map[string]bool{}, key: true})
		case json.Delim('['):
			open = append(open, level{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:top]
		}
		if len(open) > maxDepth {
			return fmt.Errorf("the body is nested deeper than %d levels", maxDepth)
		}
	}
}
