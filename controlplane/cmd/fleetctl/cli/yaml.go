package cli

import (
	"io"
	"os"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/configfile"
)

// maxFile bounds a file that a person wrote.
const maxFile = 1 << 20

// readFile reads a file that a person named; "-" is the standard input.
func (a *app) readFile(field, path string) ([]byte, error) {
	r := a.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fleet.Invalid(field, "%v", err)
		}
		defer func() { _ = f.Close() }() // it was only read
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fleet.Invalid(field, "read %s: %v", path, err)
	}
	if len(b) > maxFile {
		return nil, fleet.NewError(fleet.ErrTooLarge, field, "%s has more than %d bytes", path, maxFile)
	}
	return b, nil
}

// decodeYAML reads one document of YAML, or of JSON, which is YAML too, and checks it. Errors name the file, the line
// and the field, and never quote other lines: they may hold a token.
func decodeYAML(name string, b []byte, v any, check func() error) error {
	err := configfile.Parse(name, b, v, func() error {
		if err := check(); err != nil {
			return fleet.AsError(err) // with all that was wrapped around the message
		}
		return nil
	})
	if e := fleet.AsError(err); e != nil && e.Field == "config" {
		e.Field = "file"
		return e
	}
	return err
}
