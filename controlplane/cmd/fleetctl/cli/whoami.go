package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

func (a *app) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Show what the token may do", Example: "  fleetctl whoami", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, apiPath("whoami"), func(w client.Whoami) error {
				t := newTable(a.Out)
				t.row("token", w.Token.ID)
				t.row("role", w.Token.Role)
				t.row("tenant", w.Token.Tenant)
				t.row("acts for", "the "+w.Party)
				t.row("user", w.Token.Owner)
				t.row("permissions", join(w.Permissions))
				if !w.Token.ExpiresAt.IsZero() {
					t.row("ends", a.age(w.Token.ExpiresAt))
				}
				t.row("comment", w.Token.Comment)
				t.row("made", a.age(w.Token.CreatedAt))
				return t.flush()
			})
		},
	}
}

// build is what this program was built from.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of fleetctl", Example: "  fleetctl version", Args: exact(),
		RunE: func(*cobra.Command, []string) error {
			b := readBuild()
			if a.json() {
				return a.printValue(b)
			}
			return a.say("fleetctl %s %s %s", b.Version, b.Go, b.Platform)
		},
	}
}

const unknown = "dev"

// version is set when the program is built (see Makefile).
var version = unknown

func readBuild() build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; version == unknown && v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}
