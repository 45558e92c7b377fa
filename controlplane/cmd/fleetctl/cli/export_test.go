package cli

import (
	"io"

	"github.com/spf13/cobra"
)

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

// Root is the tree of commands.
func Root(o Options) *cobra.Command { return (&app{Options: o}).root() }

// StaleReads names the commands that take --stale.
var StaleReads = staleReads
