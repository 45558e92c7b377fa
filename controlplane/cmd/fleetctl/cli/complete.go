package cli

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// completeTimeout bounds the wait of a person who pressed Tab.
const completeTimeout = 2 * time.Second

// words completes one of some fixed words.
func words[T ~string](ws ...T) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		out := make([]string, len(ws))
		for i, w := range ws {
			out[i] = string(w)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// first completes the first argument, and nothing after it.
func first(fn cobra.CompletionFunc) cobra.CompletionFunc { return positions(fn) }

// positions completes each argument with its own function.
func positions(fns ...cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(fns) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return fns[len(args)](cmd, args, toComplete)
	}
}

func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.Sorted(maps.Keys(c.Contexts)), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeTenants(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := a.session()
	return complete(cmd, s, err, func() listing { return listing{path: "/v1/tenants", cursor: "cursor"} }, "id")
}

func (a *app) completeNodes(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := a.session()
	return complete(cmd, s, err, func() listing { return listing{path: "/v1/nodes", cursor: "cursor"} }, "id")
}

// completeEdgeRegions lists the regions of nodes.
func (a *app) completeEdgeRegions(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := a.session()
	return complete(cmd, s, err, func() listing { return listing{path: "/v1/regions"} }, "name")
}

func (a *app) completeHosts(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := a.tenantSession(cmd)
	return complete(cmd, s, err, func() listing { return listing{path: s.path("hosts"), cursor: "cursor"} }, "name")
}

func (a *app) completeRules(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := a.tenantSession(cmd)
	return complete(cmd, s, err, func() listing { return listing{path: s.path("rules"), cursor: "cursor"} }, "id")
}

func (a *app) completeMembers(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := a.session()
	return complete(cmd, s, err, func() listing { return listing{path: "/v1/cluster/members"} }, "id")
}

// completeRegions lists the regions that members name.
func (a *app) completeRegions(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := a.session()
	names, directive := complete(cmd, s, err, func() listing { return listing{path: "/v1/cluster/members"} }, "region")
	slices.Sort(names)
	return slices.Compact(names), directive
}

func (a *app) completeGroups(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := a.session()
	return complete(cmd, s, err, func() listing { return listing{path: "/v1/groups"} }, "name")
}

func (a *app) completeApprovals(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := a.session()
	return complete(cmd, s, err, func() listing { return listing{path: "/v1/approvals"} }, "id")
}

func (a *app) completeUsers(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	path, s, err := a.scoped(cmd, "users")
	return complete(cmd, s, err, func() listing { return listing{path: path, cursor: "cursor"} }, "id")
}

func (a *app) completeRoles(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	path, s, err := a.scoped(cmd, "roles")
	return complete(cmd, s, err, func() listing { return listing{path: path} }, "name")
}

func (a *app) completeTokens(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	path, s, err := a.scoped(cmd, "tokens")
	return complete(cmd, s, err, func() listing { return listing{path: path, cursor: "cursor"} }, "id")
}

// complete lists one field of a list's first page; what goes wrong completes nothing.
func complete(cmd *cobra.Command, s *session, err error, l func() listing, field string) ([]string, cobra.ShellCompDirective) {
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	pages := l()
	pages.limit = pageSize
	var out []string
	err = pages.each(ctx, s, func(items []json.RawMessage) error {
		for _, item := range items {
			var v map[string]json.RawMessage
			var name string
			if json.Unmarshal(item, &v) == nil && json.Unmarshal(v[field], &name) == nil {
				out = append(out, name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
