package cli

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

func (a *app) clusterKEK() *cobra.Command {
	return group("kek", "The key-encryption key", "The key-encryption key seals every secret in the replicated state. It is in a file on each member, and never in a backup.",
		a.clusterKEKShow(), a.clusterKEKRotate())
}

func (a *app) clusterKEKShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show", Short: "Show which key seals, which members have which, and how many secrets wait", Args: exact(),
		Long:    "Show which key seals, which members have which, and how many secrets an older key seals still: it must be kept until none waits.",
		Example: "  fleetctl cluster kek show",
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.session()
		if err != nil {
			return err
		}
		return get(cmd.Context(), a, s, apiPath("cluster", "kek"), a.showKEK)
	}
	return cmd
}

func (a *app) clusterKEKRotate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rotate", Short: "Let the newest key seal", Args: exact(),
		Long: "Let the newest key in the file of the members seal from now on. Every member must have it: 'controlplane kek add' makes\n" +
			"one. The cluster's secrets are sealed anew at once, customers' keys by and by ('kek show'); no node notices. Keep the key\n" +
			"before until nothing waits, and in escrow for as long as there are backups from its time.",
		Example: "  fleetctl cluster kek rotate --reason 'yearly'",
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.session()
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, apiPath("cluster", "kek", "rotate"), nil, a.showKEK)
	}
	return cmd
}

func (a *app) showKEK(k client.KEKStatus) error {
	rest := "nothing waits to be sealed by it"
	if k.Waiting > 0 {
		rest = fmt.Sprintf("%d secrets wait to be sealed by it; keep %s until none does", k.Waiting, strings.Join(k.Needed, ", "))
	}
	if err := a.say("%s seals; %s", k.Seals, rest); err != nil {
		return err
	}
	t := newTable(a.Out, "MEMBER", "KEYS", "DETAIL")
	for _, m := range k.Members {
		t.row(m.Member, strings.Join(m.Keys, " "), m.Detail)
	}
	return t.flush()
}
