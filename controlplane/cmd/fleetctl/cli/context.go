package cli

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/fleet"
)

const contextLong = `A context is a named set of settings: addresses, CA certificate, token and tenant.

The context file is $FLEETCTL_CONFIG, else ~/.config/fleetctl/config.yaml. It is written with mode 0600, and refused
when it holds a token that others on the machine may read.`

func (a *app) contextCommand() *cobra.Command {
	return group("context", "Named settings for several fleets", contextLong, a.contextList(), a.contextUse(), a.contextSet(), a.contextDelete(), a.contextShow())
}

// tokenShown says whose token a context has, never the token.
func (s settings) tokenShown() string {
	switch parts := strings.Split(s.Token, "."); {
	case s.TokenFile != "":
		return "from " + s.TokenFile
	case s.Token == "":
		return ""
	case len(parts) == 3:
		return parts[1] + " (secret not shown)"
	}
	return "set (not shown)"
}

func (a *app) contextList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the contexts", Example: "  fleetctl context list", Args: exact(),
		RunE: func(*cobra.Command, []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			if a.json() {
				return a.printValue(map[string]any{"current": c.Current, "items": slices.Sorted(maps.Keys(c.Contexts))})
			}
			t := newTable(a.Out, "CURRENT", "CONTEXT", "ADDR", "TENANT", "TOKEN")
			for _, name := range slices.Sorted(maps.Keys(c.Contexts)) {
				current := ""
				if name == c.Current {
					current = "*"
				}
				s := c.Contexts[name]
				t.row(current, name, strings.Join(s.Addr, ","), s.Tenant, s.tokenShown())
			}
			return t.flush()
		},
	}
}

func (a *app) contextUse() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Example: "  fleetctl context use production", Args: exact("NAME"),
		ValidArgsFunction: first(a.completeContexts),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.changeConfig(args[0], func(c *config) { c.Current = args[0] }, "the current context is %s now")
		},
	}
}

func (a *app) contextDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Forget a context", Example: "  fleetctl context delete old", Args: exact("NAME"),
		ValidArgsFunction: first(a.completeContexts),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.changeConfig(args[0], func(c *config) {
				delete(c.Contexts, args[0])
				if c.Current == args[0] {
					c.Current = ""
				}
			}, "context %s is deleted; its token is still valid: 'fleetctl token revoke' ends it")
		},
	}
}

// changeConfig changes a context that exists.
func (a *app) changeConfig(name string, change func(*config), done string) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	if _, ok := c.Contexts[name]; !ok {
		return fleet.NewError(fleet.ErrNotFound, "context", "there is no context %q: see 'fleetctl context list'", name)
	}
	change(&c)
	if err := a.saveConfig(c); err != nil {
		return err
	}
	return a.say(done, name)
}

func (a *app) contextSet() *cobra.Command {
	return &cobra.Command{
		Use: "set NAME", Short: "Make or change a context from the global flags",
		Long:    "Make or change a context: the global flags that are given are saved, the others stay as they are. The first context becomes the current one.",
		Example: "  fleetctl context set production --addr 10.0.0.1:8440,10.0.0.2:8440 --cacert api-ca.crt --token-file token",
		Args:    exact("NAME"), ValidArgsFunction: first(a.completeContexts),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if err := fleet.ValidateID("context", name); err != nil {
				return err
			}
			given, err := a.given()
			if err != nil {
				return err
			}
			if len(given.Addr) == 0 && given.Token+given.TokenFile+given.CACert+string(given.Tenant) == "" {
				return usagef(cmd, "nothing to save: give --addr, --cacert, --token, --token-file or --tenant")
			}
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			if c.Contexts == nil {
				c.Contexts = map[string]settings{}
			}
			c.Contexts[name] = given.or(c.Contexts[name])
			if len(c.Contexts) == 1 {
				c.Current = name
			}
			if err := a.saveConfig(c); err != nil {
				return err
			}
			return a.say("context %s is saved", name)
		},
	}
}

func (a *app) contextShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [NAME]", Short: "Show a context, by default the current one", Example: "  fleetctl context show", Args: atMost("NAME"),
		ValidArgsFunction: first(a.completeContexts),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			name := c.Current
			if len(args) > 0 {
				name = args[0]
			}
			if name == "" {
				return usagef(cmd, "there is no current context: name one, or choose it with 'fleetctl context use'")
			}
			s, ok := c.Contexts[name]
			if !ok {
				return fleet.NewError(fleet.ErrNotFound, "context", "there is no context %q: see 'fleetctl context list'", name)
			}
			if a.json() {
				return a.printValue(map[string]any{"name": name, "addr": s.Addr, "cacert": s.CACert, "token": s.tokenShown(), "tenant": s.Tenant})
			}
			t := newTable(a.Out)
			t.row("name", name)
			t.row("addr", strings.Join(s.Addr, ","))
			t.row("cacert", s.CACert)
			t.row("token", s.tokenShown())
			t.row("tenant", s.Tenant)
			return t.flush()
		},
	}
}
