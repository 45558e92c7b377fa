package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/observability/program"
)

const defaultKEKFile = "/etc/edgefleet/kek"

func kekCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "kek",
		Short: "The key-encryption keys in a file, for their rotation",
		Long: "The key-encryption keys in a file. To rotate: 'kek add' on one host, copy the file to the other members, restart them one\n" +
			"after the other, 'fleetctl cluster kek rotate', and when nothing waits any more, 'kek drop' on each host. The old key\n" +
			"stays in escrow for as long as there are backups from its time.",
	}
	c.AddCommand(kekListCommand(), kekAddCommand(), kekDropCommand())
	return c
}

// withKEKFile adds --file to a command.
func withKEKFile(c *cobra.Command, f func(path string, args []string) ([]string, error)) *cobra.Command {
	path := c.Flags().StringP("file", "f", defaultKEKFile, "file of the keys, which kek_file, or the systemd credential of that name, is read from")
	if c.Args == nil {
		c.Args = program.NoArguments
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		names, err := f(*path, args)
		if err != nil {
			return err
		}
		for i, name := range slices.Backward(names) {
			note := ""
			if i == len(names)-1 {
				note = "  newest"
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s%s\n", name, note); err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

func kekListCommand() *cobra.Command {
	return withKEKFile(&cobra.Command{
		Use: "list", Short: "List the names of the keys, never the keys", Example: "  controlplane kek list --file /etc/edgefleet/kek",
	}, func(path string, _ []string) ([]string, error) { return controlplane.KEKNames(path) })
}

func kekAddCommand() *cobra.Command {
	return withKEKFile(&cobra.Command{
		Use: "add", Short: "Add a new key, which opens at once and seals when the cluster says so", Example: "  controlplane kek add --file /etc/edgefleet/kek",
	}, func(path string, _ []string) ([]string, error) { return controlplane.AddKEK(path) })
}

func kekDropCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "drop NAME", Short: "Drop a key that seals nothing any more", Args: oneName,
		Long:    "Drop a key. 'fleetctl cluster kek show' must say that nothing waits: a member that lacks a key in use does not start.",
		Example: "  controlplane kek drop kek-0123456789abcdef --file /etc/edgefleet/kek",
	}
	yes := c.Flags().Bool("yes", false, "do not ask")
	return withKEKFile(c, func(path string, args []string) ([]string, error) {
		if _, err := fmt.Fprintf(c.ErrOrStderr(), "%s goes from %s: what it sealed, backups of its time too, needs a copy of it from elsewhere.\n", args[0], path); err != nil {
			return nil, err
		}
		if err := sure(c, args[0], *yes); err != nil {
			return nil, err
		}
		return controlplane.DropKEK(path, args[0])
	})
}

func oneName(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return program.Usage(c, "it takes the NAME of one key, which 'controlplane kek list' shows")
	}
	return nil
}
