package faulttest

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// verb is what a client asks of one object.
type verb string

const (
	create verb = "create"
	read   verb = "read"
	// swap changes the value if it still is the one expected, write whatever it is.
	swap   verb = "swap"
	write  verb = "write"
	remove verb = "remove"
	// take takes a semaphore of one place for ever.
	take verb = "take"
)

// outcome is what the client was told.
type outcome string

const (
	done outcome = "done"
	// differs: the object exists, or is not as expected; absent: there is none; refused: for a reason that says nothing of
	// the object, without effect.
	differs outcome = "differs"
	absent  outcome = "absent"
	refused outcome = "refused"
	// unknown: no answer, or one that does not say; it may take effect at any time later, once.
	unknown outcome = "unknown"
)

type input struct {
	verb   verb
	object string
	// value is what is written, or who takes; expect what swap expects.
	value, expect string
}

type output struct {
	outcome outcome
	value   string
}

// register is the sequential behaviour of one object; nil-like "" is an object that is not there.
func register(state string, in input, out output) (bool, string) {
	switch in.verb {
	case read:
		return out.outcome == done && state == out.value && state != "" || out.outcome == absent && state == "" || out.outcome == unknown, state
	case create, take:
		return changed(state, in.value, state == "", out, differs)
	case write:
		if out.outcome == differs {
			return true, state // it lost a race against another write
		}
		return changed(state, in.value, state != "", out, absent)
	case swap:
		if out.outcome == absent {
			return state == "", state
		}
		return changed(state, in.value, state != "" && state == in.expect, out, differs)
	case remove:
		return changed(state, "", state != "", out, absent)
	}
	return false, state
}

// changed is the behaviour of a change that is possible or not, and answers otherwise if it is not.
func changed(state, next string, possible bool, out output, otherwise outcome) (bool, string) {
	switch {
	case out.outcome == refused:
		return true, state
	case out.outcome == unknown && possible, out.outcome == done && possible:
		return true, next
	case out.outcome == unknown:
		return true, state
	}
	return out.outcome == otherwise && !possible, state
}

// model checks each object by itself.
func model() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			by := map[string]int{}
			var out [][]porcupine.Operation
			for _, op := range history {
				in, _ := op.Input.(input)
				i, known := by[in.object]
				if !known {
					i = len(out)
					by[in.object], out = i, append(out, nil)
				}
				out[i] = append(out[i], op)
			}
			return out
		},
		Init: func() any { return "" },
		Step: func(state, in, out any) (bool, any) {
			s, _ := state.(string)
			i, _ := in.(input)
			o, _ := out.(output)
			return register(s, i, o)
		},
		DescribeOperation: func(in, out any) string {
			i, _ := in.(input)
			o, _ := out.(output)
			return fmt.Sprintf("%s %s %s(expect %s) → %s %s", i.verb, i.object, i.value, i.expect, o.outcome, o.value)
		},
	}
}

// Linearizable holds the history against the model; false is a violation. A check that does not end within limit is
// neither: porcupine.Unknown.
func (h *History) Linearizable(limit time.Duration) (porcupine.CheckResult, porcupine.LinearizationInfo) {
	return porcupine.CheckOperationsVerbose(model(), h.operations(), limit)
}

// Visualize writes a page that shows the history and where it breaks.
func Visualize(info porcupine.LinearizationInfo, file string) error {
	return porcupine.VisualizePath(model(), info, file)
}
