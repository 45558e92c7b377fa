package fleet

import (
	"bytes"
	"encoding/json"
	"io"
)

// DecodeStrict reads exactly one JSON value into v: unknown fields and trailing bytes are ErrInvalid.
func DecodeStrict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return Invalid("json", "decode json: %v", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Invalid("json", "decode json: unexpected bytes after the value at offset %d", dec.InputOffset())
	}
	return nil
}
