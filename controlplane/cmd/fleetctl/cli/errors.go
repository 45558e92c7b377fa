package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// usageError is a command line that makes no sense: exit code 2 and a pointer to the help.
type usageError struct{ message, command string }

func (e *usageError) Error() string { return e.message + "; see '" + e.command + " --help'" }

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...), cmd.CommandPath()}
}

// exitCode ends the program without another word: what was printed says why.
//
//nolint:errname // it is a code, and an error so that it comes back through cobra
type exitCode int

func (e exitCode) Error() string { return "exit " + strconv.Itoa(int(e)) }

// finish prints err and returns the exit code.
func (a *app) finish(ctx context.Context, err error) int {
	var code exitCode
	var usage *usageError
	switch {
	case err == nil:
		return fleet.ExitOK
	case errors.Is(ctx.Err(), context.Canceled):
		return fleet.ExitInterrupted
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		a.printError(&client.Problem{Title: "usage", Kind: "usage", Detail: usage.Error()})
		return fleet.ExitUsage
	}
	kind := fleet.KindOf(err)
	var p *client.Problem
	if !errors.As(err, &p) {
		e := fleet.AsError(err)
		p = &client.Problem{Title: kind.Name, Kind: kind.Name, Field: e.Field, Detail: e.Message}
	}
	a.printError(p)
	return kind.Exit
}

// printError writes one line, or the problem as JSON. What stderr does with it is not looked at: there is nowhere to say so.
func (a *app) printError(p *client.Problem) {
	if a.flags.output == "json" {
		b, err := json.Marshal(p)
		if p.Status == 0 { // it was found here, so there is no status
			b, err = json.Marshal(localProblem{p.Title, p.Detail, p.Kind, p.Field})
		}
		if err == nil {
			_, _ = fmt.Fprintf(a.Err, "%s\n", b)
			return
		}
	}
	line := "fleetctl: " + clean(p.Detail)
	if p.Field != "" {
		line += " (" + clean(p.Field) + ")"
	}
	if p.Status >= 500 && p.RequestID != "" {
		line += " (request " + clean(p.RequestID) + ")"
	}
	_, _ = fmt.Fprintln(a.Err, line)
}

// localProblem is a problem that no API answered.
type localProblem struct {
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Kind   string `json:"kind"`
	Field  string `json:"field,omitempty"`
}

// note tells a person something that is not the answer.
func (a *app) note(format string, args ...any) {
	_, _ = fmt.Fprintln(a.Err, clean(fmt.Sprintf(format, args...)))
}

func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usagef(cmd, "%v", err)
	}
	var known []string
	collect := func(f *pflag.Flag) { known = append(known, f.Name) }
	cmd.Flags().VisitAll(collect)
	cmd.InheritedFlags().VisitAll(collect)
	if c := closest(unknown.GetSpecifiedName(), known); c != "" {
		return usagef(cmd, "%v (did you mean --%s?)", err, c)
	}
	return usagef(cmd, "%v", err)
}

func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	known := names(cmd)
	if c := closest(args[0], known); c != "" {
		return usagef(cmd, "unknown command %q (did you mean '%s %s'?)", args[0], cmd.CommandPath(), c)
	}
	return usagef(cmd, "unknown command %q: use one of %s", args[0], list(known))
}

func names(cmd *cobra.Command) []string {
	var out []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			out = append(out, c.Name())
		}
	}
	return out
}

// exact wants one argument for each of the given names.
func exact(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef(cmd, "%s is missing: %s %s", names[len(args)], cmd.CommandPath(), strings.Join(names, " "))
		}
		return atMost(names...)(cmd, args)
	}
}

// atMost wants no more arguments than the given names.
func atMost(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return usagef(cmd, "unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// closest is the candidate that word is most likely a misspelling of; empty if none is near.
func closest(word string, candidates []string) string {
	best, least := "", max(2, len(word)/3)+1
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		if d := distance(word, c); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(row[j]+1, row[j+1]+1, change)
		}
	}
	return row[len(b)]
}
