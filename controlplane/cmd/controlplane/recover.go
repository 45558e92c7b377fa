package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/fleet"
)

// maxKeyFile bounds what is read as a recovery key.
const maxKeyFile = 16 << 10

// rebirthFlags are the flags of what begins an incarnation without a cluster that agrees.
type rebirthFlags struct {
	recovery    *string
	incarnation *uint64
	yes         *bool
}

func addRebirthFlags(c *cobra.Command) rebirthFlags {
	return rebirthFlags{
		c.Flags().String("recovery-key", "", "file with the recovery key; without it nodes do not follow until 'fleetctl cluster incarnation start'"),
		c.Flags().Uint64("incarnation", 0, "number of the new incarnation; default: the time in seconds, which is higher than any before"),
		c.Flags().Bool("yes", false, "do not ask"),
	}
}

func (f rebirthFlags) rebirth(cmd *cobra.Command) (controlplane.Rebirth, error) {
	b := controlplane.Rebirth{Incarnation: *f.incarnation, Now: time.Now(), Confirm: func(p controlplane.Plan) error { return confirm(cmd, p, *f.yes) }}
	if *f.recovery == "" {
		return b, nil
	}
	file, err := os.Open(*f.recovery)
	if err != nil {
		return b, fleet.Invalid("recovery-key", "%v", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	if b.RecoveryKey, err = io.ReadAll(io.LimitReader(file, maxKeyFile)); err != nil {
		return b, fleet.Invalid("recovery-key", "%v", err)
	}
	if len(b.RecoveryKey) == 0 {
		return b, fleet.Invalid("recovery-key", "%s is empty", *f.recovery)
	}
	return b, nil
}

// confirm says what is about to happen and asks for the cluster's name.
func confirm(cmd *cobra.Command, p controlplane.Plan, yes bool) error {
	w := cmd.ErrOrStderr()
	_, _ = fmt.Fprintf(w, "member %s begins incarnation %d of cluster %s with its state at index %d, term %d.\n", p.Member, p.Incarnation, p.Cluster, p.Index, p.Term)
	_, _ = fmt.Fprintf(w, "Whatever the cluster acknowledged behind that index is lost.\n")
	if p.Beyond > 0 {
		_, _ = fmt.Fprintf(w, "%d changes at its end were maybe never acknowledged; they count from now on.\n", p.Beyond)
	}
	if len(p.Lost) > 0 {
		_, _ = fmt.Fprintf(w, "Left out: %v. They must never start again with what they have: wipe their data directories.\n", p.Lost)
	}
	if !p.Signed {
		_, _ = fmt.Fprintf(w, "Without --recovery-key nodes keep what they have, and follow after 'fleetctl cluster incarnation start --recovery-key FILE'.\n")
	}
	return sure(cmd, string(p.Cluster), yes)
}

// sure asks for a name to be typed. Without a terminal it refuses to ask.
func sure(cmd *cobra.Command, name string, yes bool) error {
	if yes {
		return nil
	}
	w := cmd.ErrOrStderr()
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return fleet.NewError(fleet.ErrInvalid, "yes", "this cannot be undone, and there is no terminal to ask on: say --yes. Nothing was changed")
	}
	_, _ = fmt.Fprintf(w, "This cannot be undone. Type %s to go on: ", name)
	line, _ := bufio.NewReader(in).ReadString('\n') // the end of the input is no answer
	if strings.TrimSpace(line) != name {
		return fleet.NewError(fleet.ErrInvalid, "", "%q is not %q: nothing was changed", strings.TrimSpace(line), name)
	}
	return nil
}

func recoverCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "recover",
		Short: "Go on with this member after the quorum was lost for good",
		Long: "Go on with this member after a majority of the members was lost for good. Stop it first. Run this on one member only, the one\n" +
			"whose log reaches furthest; --peers is the whole new cluster, usually this member alone: the others join anew.\n" +
			"What the lost members had acknowledged and this one never received is lost. A new incarnation begins.",
		Example: "  controlplane recover --config /etc/edgefleet/controlplane.yaml --peers m1=203.0.113.1:8441 --recovery-key recovery.key",
	}
	peers := c.Flags().String("peers", "", "the voters from now on: member=host:port of the Raft port, separated by commas")
	dir := c.Flags().String("data-dir", "", "the member's data directory, if it is not the configured one")
	flags := addRebirthFlags(c)
	return withConfig(c, func(cmd *cobra.Command, cfg controlplane.Config) error {
		if *dir != "" {
			abs, err := filepath.Abs(*dir)
			if err != nil {
				return fleet.Invalid("data-dir", "%v", err)
			}
			cfg.DataDir = abs
		}
		servers, err := controlplane.ParsePeers(*peers)
		if err != nil {
			return err
		}
		b, err := flags.rebirth(cmd)
		if err != nil {
			return err
		}
		p, err := controlplane.Recover(cfg, servers, b)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "member %s is recovered: incarnation %d begins at index %d. Start it with 'controlplane run'; others join with 'controlplane join'.\n", p.Member, p.Incarnation, p.Index+1)
		return err
	})
}

// initFromSnapshot is init --from-snapshot.
func initFromSnapshot(cmd *cobra.Command, cfg controlplane.Config, path string, flags rebirthFlags) error {
	b, err := flags.rebirth(cmd)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fleet.Invalid("from-snapshot", "%v", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	out, err := controlplane.InitFromSnapshot(cfg, f, b)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), `cluster %s is back in incarnation %d, from the snapshot of %s at index %d.
the state had the hash %s when it was restored, as in the snapshot.

tokens of the snapshot are valid; a new operator token (also in %s, mode 0600):
  %s

next:
  1. start this member:  controlplane run --config ...
  2. join the others on empty data directories: fleetctl cluster join-token, controlplane join
`, out.Initialized.Cluster, out.Incarnation, out.Envelope.Time.UTC().Format(time.RFC3339), out.Envelope.Index, out.Envelope.StateHash, out.TokenFile, out.Token)
	return err
}
