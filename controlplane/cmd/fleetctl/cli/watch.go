package cli

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

// watchFlag adds --watch.
func watchFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("watch", false, "show it again whenever it changes, until interrupted; with -o json one object a line")
}

// watchObject shows an object, and again whenever it is another one. A terminal is cleared before; elsewhere a line is
// between two. Members that are away are said once each time, and waited for.
func watchObject[T any](ctx context.Context, a *app, s *session, path string, show func(T) error) error {
	began := false
	o := client.Watching{Broken: func(err error) { a.note("trying again: %v", err) }}
	return client.Watch(ctx, s.Client, path, nil, o, func(raw json.RawMessage) error {
		switch {
		case a.json():
			return answer(a, append(raw, '\n'), show)
		case isTerminal(a.Out):
			if err := write(a.Out, []byte("\x1b[H\x1b[2J")); err != nil {
				return err
			}
		case began:
			if err := a.say("---"); err != nil {
				return err
			}
		}
		began = true
		return answer(a, raw, show)
	})
}
