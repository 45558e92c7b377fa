package cli

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) userCommand() *cobra.Command {
	return group("user", "People and their roles", "", a.userAdd(), a.userList(), a.userShow(), a.userSetRoles(), a.userDisable(), a.userEnable(), a.userDelete())
}

// scoped is where the objects of a scope are: of the tenant that is named or that the token is of, else the vendor's.
func (a *app) scoped(cmd *cobra.Command, parts ...string) (string, *session, error) {
	vendor, err := a.operatorWithoutTenant(cmd)
	if err != nil {
		return "", nil, err
	}
	return a.tokensPath(cmd, vendor, parts...)
}

func (a *app) userAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a user of the tenant, or without --tenant of the vendor", Args: exact("NAME"),
		Example: "  fleetctl user add alice --role administrator --email alice@example.net\n  fleetctl user add carol --tenant acme --role analyst",
	}
	in := client.UserCreate{}
	roles := rolesFlag(cmd)
	cmd.Flags().StringVar(&in.Name, "name", "", "full name, for people")
	cmd.Flags().StringVar(&in.Email, "email", "", "e-mail address")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in.ID, in.Roles = args[0], roleNames(*roles)
		path, s, err := a.scoped(cmd, "users")
		if err != nil {
			return err
		}
		raw, err := s.Raw(cmd.Context(), http.MethodPost, path, nil, in)
		if err != nil {
			return err
		}
		return answer(a, raw, func(u fleet.User) error {
			return a.say("user %s is made; a first token for them: fleetctl token create --user %s%s", u.ID, args[0], tenantHint(u.Tenant))
		})
	}
	return cmd
}

func tenantHint(t fleet.TenantID) string {
	if t == "" {
		return ""
	}
	return " --tenant " + string(t)
}

func rolesFlag(cmd *cobra.Command) *[]string {
	roles := cmd.Flags().StringSlice("role", nil, "role; may be repeated (see 'fleetctl role list')")
	completeFlag(cmd, "role", words(fleet.BuiltinRoles()...))
	return roles
}

func roleNames(names []string) []fleet.RoleName {
	out := []fleet.RoleName{}
	for _, n := range names {
		out = append(out, fleet.RoleName(n))
	}
	return out
}

// idleQuery reads --idle: a duration such as 90d or 720h.
func idleQuery(cmd *cobra.Command, idle string) (url.Values, error) {
	if idle == "" {
		return nil, nil
	}
	d, err := lifetime(idle)
	if err != nil {
		return nil, usagef(cmd, "--idle %s is not a time such as 90d", idle)
	}
	return url.Values{"idle": {d.String()}}, nil
}

// lifetime reads a duration that may be in days.
func lifetime(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err //nolint:gosec // 16 bits
	}
	return time.ParseDuration(s)
}

func (a *app) userList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List users, also those that nobody used for a while", Args: exact(),
		Example: "  fleetctl user list\n  fleetctl user list --tenant acme --idle 90d",
	}
	idle := cmd.Flags().String("idle", "", "only users whose tokens nobody used for this long, such as 90d")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q, err := idleQuery(cmd, *idle)
		if err != nil {
			return err
		}
		path, s, err := a.scoped(cmd, "users")
		if err != nil {
			return err
		}
		return show(cmd.Context(), a, s, listing{path: path, query: q, cursor: "cursor"}, []string{"USER", "ROLES", "STATE", "NAME", "LAST SEEN", "AGE"}, func(u fleet.User) []any {
			return []any{u.ID, join(u.Spec.Roles), userState(u), u.Spec.Name, a.age(u.LastSeenAt), a.age(u.CreatedAt)}
		})
	}
	return cmd
}

func join[T ~string](words []T) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	return strings.Join(out, ",")
}

func userState(u fleet.User) string {
	switch {
	case u.Spec.Disabled:
		return "disabled"
	case !u.Activated:
		return "invited"
	}
	return "active"
}

func (a *app) showUser(u fleet.User) error {
	t := newTable(a.Out)
	t.row("user", u.ID)
	t.row("tenant", u.Tenant)
	t.row("roles", join(u.Spec.Roles))
	t.row("state", userState(u))
	t.row("introduced by", u.IntroducedBy)
	t.row("name", u.Spec.Name)
	t.row("email", u.Spec.Email)
	t.row("last seen", a.age(u.LastSeenAt))
	t.row("made", a.age(u.CreatedAt))
	return t.flush()
}

func (a *app) userShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a user", Example: "  fleetctl user show alice", Args: exact("NAME"),
		ValidArgsFunction: first(a.completeUsers),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, s, err := a.scoped(cmd, "users", args[0])
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, path, a.showUser)
		},
	}
}

func (a *app) userSetRoles() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set-roles NAME", Short: "Replace a user's roles", Args: exact("NAME"),
		ValidArgsFunction: first(a.completeUsers),
		Example:           "  fleetctl user set-roles alice --role analyst --role deploy",
	}
	roles := rolesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(*roles) == 0 {
			return usagef(cmd, "--role is missing: to take all access away, use 'fleetctl user disable %s'", args[0])
		}
		path, s, err := a.scoped(cmd, "users", args[0])
		if err != nil {
			return err
		}
		names := roleNames(*roles)
		return change(cmd.Context(), a, s, path, func(fleet.User) any { return client.UserUpdate{Roles: &names} }, func(u fleet.User) error {
			return a.say("user %s has the roles %s", u.ID, join(u.Spec.Roles))
		})
	}
	return cmd
}

func (a *app) userDisable() *cobra.Command {
	cmd := &cobra.Command{
		Use: "disable NAME", Short: "End a user's tokens on every member at once", Args: exact("NAME"),
		ValidArgsFunction: first(a.completeUsers),
		Long:              "End all tokens of a user, with what is open by them. It returns when every member that can be reached refuses them, and names those that did not confirm.",
		Example:           "  fleetctl user disable alice --reason 'left the company'",
	}
	return a.switchUser(cmd, "disable", "is disabled")
}

func (a *app) userEnable() *cobra.Command {
	cmd := &cobra.Command{
		Use: "enable NAME", Short: "Let a disabled user in again", Example: "  fleetctl user enable alice", Args: exact("NAME"),
		ValidArgsFunction: first(a.completeUsers),
	}
	return a.switchUser(cmd, "enable", "is enabled")
}

func (a *app) switchUser(cmd *cobra.Command, verb, done string) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path, s, err := a.scoped(cmd, "users", args[0], verb)
		if err != nil {
			return err
		}
		raw, err := s.Raw(cmd.Context(), http.MethodPost, path, nil, nil)
		if err != nil {
			return err
		}
		return answer(a, raw, func(u client.UserEnded) error { return a.settled(u.Settled, "user "+string(u.ID)+" "+done) })
	}
	return cmd
}

// settled says what was done, and which members did not confirm it.
func (a *app) settled(s client.Settled, done string) error {
	if err := a.say("%s; members that confirmed: %s", done, list(s.Confirmed)); err != nil {
		return err
	}
	if len(s.Unconfirmed) > 0 {
		a.note("not confirmed by %s: there, reads with ?consistency=stale may answer until the member hears from the leader; stop it if that must not be", list(s.Unconfirmed))
	}
	return nil
}

func (a *app) userDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a user with all tokens", Example: "  fleetctl user delete alice --yes", Args: exact("NAME"),
		ValidArgsFunction: first(a.completeUsers),
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.confirm(cmd, *yes, "deleting user", args[0]); err != nil {
			return err
		}
		path, s, err := a.scoped(cmd, "users", args[0])
		if err != nil {
			return err
		}
		raw, err := s.Raw(cmd.Context(), http.MethodDelete, path, nil, nil)
		if err != nil {
			return err
		}
		return answer(a, raw, func(e client.Settled) error { return a.settled(e, "user "+args[0]+" is deleted") })
	}
	return cmd
}
