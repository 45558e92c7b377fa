package cli

import "github.com/spf13/cobra"

func (a *app) certCommand() *cobra.Command {
	return group("cert", "Certificates of hosts", "", a.certBudget())
}
