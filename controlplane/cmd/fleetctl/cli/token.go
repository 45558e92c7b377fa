package cli

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) tokenCommand() *cobra.Command {
	return group("token", "API tokens", "", a.tokenCreate(), a.tokenList(), a.tokenRotate(), a.tokenRevoke())
}

func (a *app) tokenCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create", Short: "Make an API token of a tenant, or of an operator", Args: exact(),
		Long:    "Make an API token. It is printed this one time, alone on the standard output; only its hash is stored.",
		Example: "  fleetctl token create --tenant acme --comment 'deploy pipeline' > token\n  fleetctl token create --operator --comment backup\n  fleetctl token create --user alice --scope hosts:read --ttl 30d > token",
	}
	var in client.TokenCreate
	cmd.Flags().StringVar(&in.Comment, "comment", "", "what the token is for")
	cmd.Flags().StringVar(&in.User, "user", "", "make a token of this user, of the tenant or else of the vendor")
	scope := permissionsFlag(cmd, "scope", "narrow the token to this permission; may be repeated (see 'fleetctl role list')")
	ttl := cmd.Flags().String("ttl", "", "life of the token, such as 30d or 12h; a user's has 90d, others have no end")
	operator := cmd.Flags().Bool("operator", false, "make an operator's token instead of a tenant's")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		in.Permissions = scope()
		if *ttl != "" {
			d, err := lifetime(*ttl)
			if err != nil || d <= 0 {
				return usagef(cmd, "--ttl %s is not a life such as 30d", *ttl)
			}
			in.TTL = d.String()
		}
		vendor := *operator
		if in.User != "" && !vendor {
			var err error
			if vendor, err = a.operatorWithoutTenant(cmd); err != nil {
				return err
			}
		}
		path, s, err := a.tokensPath(cmd, vendor, "tokens")
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, path, in, func(t client.TokenCreated) error {
			whose := "of an operator"
			if t.Role == fleet.RoleTenant {
				whose = "of tenant " + string(t.Tenant)
			}
			if t.Owner != "" {
				whose = "of " + string(t.Owner)
			}
			if !t.ExpiresAt.IsZero() {
				whose += ", which ends " + a.age(t.ExpiresAt)
			}
			a.note("token %s %s; it is shown this one time", t.ID, whose)
			return a.say("%s", t.Secret)
		})
	}
	return cmd
}

// tokensPath is where such objects of the tenant are, or all of them.
func (a *app) tokensPath(cmd *cobra.Command, all bool, parts ...string) (string, *session, error) {
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
	cmd := &cobra.Command{
		Use: "list", Short: "List a tenant's API tokens; for operators without --tenant, all", Args: exact(),
		Example: "  fleetctl token list\n  fleetctl token list --idle 90d",
	}
	idle := cmd.Flags().String("idle", "", "only tokens that nobody used for this long, such as 90d")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q, err := idleQuery(cmd, *idle)
		if err != nil {
			return err
		}
		path, s, err := a.scoped(cmd, "tokens")
		if err != nil {
			return err
		}
		return show(cmd.Context(), a, s, listing{path: path, query: q, cursor: "cursor"}, []string{"TOKEN", "ROLE", "TENANT", "COMMENT", "OWNER", "SCOPE", "LAST USED", "ENDS", "AGE"}, func(t fleet.Token) []any {
			return []any{t.ID, t.Role, t.Tenant, t.Comment, t.Owner, join(t.Permissions), a.age(t.LastUsedAt), a.age(t.ExpiresAt), a.age(t.CreatedAt)}
		})
	}
	return cmd
}

func (a *app) tokenRotate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rotate", Short: "Replace the token that is used by a new one", Args: exact(),
		Long:    "Replace the token that is used by a new one that nobody else knows, and end the old one at once. The new one is printed this one time, alone on the standard output.",
		Example: "  fleetctl token rotate > token",
	}
	ttl := cmd.Flags().String("ttl", "", "life of the new token, such as 30d; default as the old one's")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var in client.TokenRotate
		if *ttl != "" {
			d, err := lifetime(*ttl)
			if err != nil || d <= 0 {
				return usagef(cmd, "--ttl %s is not a life such as 30d", *ttl)
			}
			in.TTL = d.String()
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, apiPath("whoami", "rotate"), in, func(t client.TokenCreated) error {
			a.note("token %s takes the old one's place; it is shown this one time", t.ID)
			return a.say("%s", t.Secret)
		}, client.Unrepeatable()) // the answer has a secret, and the token that a repetition would come with has ended
	}
	return cmd
}

func (a *app) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End an API token on every member at once", Example: "  fleetctl token revoke tok-0123456789abcdef", Args: exact("ID"),
		ValidArgsFunction: first(a.completeTokens),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, s, err := a.scoped(cmd, "tokens", args[0])
			if err != nil {
				return err
			}
			return call(cmd.Context(), a, s, http.MethodDelete, path, nil, func(e client.Settled) error {
				return a.settled(e, "token "+args[0]+" is revoked")
			})
		},
	}
}
