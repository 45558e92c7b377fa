package cli

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) tokenCommand() *cobra.Command {
	return group("token", "API tokens", "", a.tokenCreate(), a.tokenList(), a.tokenRevoke())
}

func (a *app) tokenCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create", Short: "Make an API token of a tenant, or of an operator", Args: exact(),
		Long:    "Make an API token. It is printed this one time, alone on the standard output; only its hash is stored.",
		Example: "  fleetctl token create --tenant acme --comment 'deploy pipeline' > token\n  fleetctl token create --operator --comment alice",
	}
	var in client.TokenCreate
	cmd.Flags().StringVar(&in.Comment, "comment", "", "what the token is for")
	operator := cmd.Flags().Bool("operator", false, "make an operator's token instead of a tenant's")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path, s, err := a.tokensPath(cmd, *operator)
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, path, in, func(t client.TokenCreated) error {
			whose := "of an operator"
			if t.Role == fleet.RoleTenant {
				whose = "of tenant " + string(t.Tenant)
			}
			a.note("token %s %s; it is shown this one time", t.ID, whose)
			return a.say("%s", t.Secret)
		})
	}
	return cmd
}

// tokensPath is where the tokens of the tenant are, or all of them, or one with an id.
func (a *app) tokensPath(cmd *cobra.Command, all bool, id ...string) (string, *session, error) {
	parts := append([]string{"tokens"}, id...)
	if all {
		s, err := a.session()
		return apiPath(parts...), s, err
	}
	s, err := a.tenantSession(cmd)
	if err != nil {
		return "", nil, err
	}
	return s.path(parts...), s, nil
}

// operatorWithoutTenant reports whether an operator calls who named no tenant: then all tokens are meant.
func (a *app) operatorWithoutTenant(cmd *cobra.Command) (bool, error) {
	s, err := a.session()
	if err != nil || s.tenant != "" {
		return false, err
	}
	who, err := client.Get[client.Whoami](cmd.Context(), s.Client, apiPath("whoami"), nil)
	return who.Token.Role == fleet.RoleOperator, err
}

func (a *app) tokenList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List a tenant's API tokens; for operators without --tenant, all", Example: "  fleetctl token list", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := a.operatorWithoutTenant(cmd)
			if err != nil {
				return err
			}
			path, s, err := a.tokensPath(cmd, all)
			if err != nil {
				return err
			}
			return show(cmd.Context(), a, s, listing{path: path, cursor: "cursor"}, []string{"TOKEN", "ROLE", "TENANT", "COMMENT", "AGE"}, func(t fleet.Token) []any {
				return []any{t.ID, t.Role, t.Tenant, t.Comment, a.age(t.CreatedAt)}
			})
		},
	}
}

func (a *app) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End an API token", Example: "  fleetctl token revoke tok-0123456789abcdef", Args: exact("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.operatorWithoutTenant(cmd)
			if err != nil {
				return err
			}
			path, s, err := a.tokensPath(cmd, all, args[0])
			if err != nil {
				return err
			}
			return a.remove(cmd.Context(), s, path, nil, "token "+args[0]+" is revoked")
		},
	}
}
