package cli

import "io"

// NewProgress is the progress of a terminal of that width; 0 is none.
func NewProgress(w io.Writer, width int) interface {
	Show(line, elapsed string)
	End()
} {
	return shown{&progress{w: w, width: width}}
}

type shown struct{ *progress }

func (s shown) Show(line, elapsed string) { s.show(line, elapsed) }
func (s shown) End()                      { s.end() }
