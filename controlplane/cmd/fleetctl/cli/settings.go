package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// given are the settings that flags name, with absolute paths.
func (a *app) given() (settings, error) {
	s := settings{Addr: a.flags.addr, Token: a.flags.token, Tenant: fleet.TenantID(a.flags.tenant)}
	for flag, path := range map[*string]string{&s.CACert: a.flags.cacert, &s.TokenFile: a.flags.tokenFile} {
		if path == "" || path == "-" {
			*flag = path
			continue
		}
		abs, err := filepath.Abs(path)
		if err != nil {
			return s, fleet.Invalid("path", "%v", err)
		}
		*flag = abs
	}
	return s, nil
}

// settings merges flags, environment and context, in that order.
func (a *app) settings() (settings, error) {
	s, err := a.given()
	if err != nil {
		return s, err
	}
	env := settings{Token: a.Getenv("FLEETCTL_TOKEN"), CACert: a.Getenv("FLEETCTL_CACERT"), Tenant: fleet.TenantID(a.Getenv("FLEETCTL_TENANT"))}
	if v := a.Getenv("FLEETCTL_ADDR"); v != "" {
		env.Addr = strings.Split(v, ",")
	}
	c, err := a.loadConfig()
	if err != nil {
		return s, err
	}
	name := cmp.Or(a.flags.context, c.Current)
	saved, ok := c.Contexts[name]
	if !ok && name != "" {
		return s, fleet.NewError(fleet.ErrNotFound, "context", "there is no context %q: see 'fleetctl context list'", name)
	}
	return s.or(env).or(saved), nil
}

// or fills in what s lacks. A token and the file of one are one setting.
func (s settings) or(o settings) settings {
	if len(s.Addr) == 0 {
		s.Addr = o.Addr
	}
	if s.Token == "" && s.TokenFile == "" {
		s.Token, s.TokenFile = o.Token, o.TokenFile
	}
	s.CACert = cmp.Or(s.CACert, o.CACert)
	s.Tenant = cmp.Or(s.Tenant, o.Tenant)
	return s
}

// session is the API as one command uses it.
type session struct {
	*client.Client
	tenant fleet.TenantID
}

func (a *app) session() (*session, error) {
	o, tenant, err := a.clientOptions()
	if err != nil {
		return nil, err
	}
	c, err := client.New(o)
	if err != nil {
		return nil, err
	}
	return &session{c, tenant}, nil
}

// clientOptions are how the API is reached, and the tenant that was named.
func (a *app) clientOptions() (o client.Options, tenant fleet.TenantID, err error) {
	s, err := a.settings()
	if err != nil {
		return o, "", err
	}
	o = client.Options{Token: s.Token, Key: a.flags.key, Reason: a.flags.reason, Reads: a.reads()}
	for _, addr := range s.Addr {
		if addr = strings.TrimSpace(addr); addr != "" {
			o.Addrs = append(o.Addrs, addr)
		}
	}
	if s.TokenFile != "" {
		b, err := a.readFile("token-file", s.TokenFile)
		if err != nil {
			return o, "", err
		}
		if o.Token = strings.TrimSpace(string(b)); o.Token == "" || strings.ContainsAny(o.Token, " \t\r\n") {
			return o, "", fleet.Invalid("token-file", "%s holds no token: one line such as eft1.…", s.TokenFile)
		}
	}
	if fleet.Mistyped(o.Token) {
		return o, "", fleet.NewError(fleet.ErrUnauthenticated, "token", "the API token is mistyped: its checksum does not match; copy it again")
	}
	if s.CACert != "" {
		if o.CACert, err = a.readFile("cacert", s.CACert); err != nil {
			return o, "", err
		}
	}
	return o, s.Tenant, nil
}

// tenantSession also knows the tenant: the one that was named, else the token's own.
func (a *app) tenantSession(cmd *cobra.Command) (*session, error) {
	s, err := a.session()
	if err != nil {
		return nil, err
	}
	if s.tenant == "" {
		who, err := client.Get[client.Whoami](cmd.Context(), s.Client, "/v1/whoami", nil)
		if err != nil {
			return nil, err
		}
		if s.tenant = who.Token.Tenant; s.tenant == "" {
			return nil, usagef(cmd, "which tenant? this is an operator's token: give --tenant, or set FLEETCTL_TENANT")
		}
	}
	return s, fleet.ValidateID("tenant", s.tenant)
}

// path is the path of something of the tenant.
func (s *session) path(parts ...string) string {
	return apiPath(append([]string{"tenants", string(s.tenant)}, parts...)...)
}

// apiPath joins parts to a path of the API; a part is escaped, so that a name cannot lead elsewhere.
func apiPath(parts ...string) string {
	escaped := make([]string, len(parts))
	for i, part := range parts {
		escaped[i] = url.PathEscape(part)
	}
	return "/v1/" + strings.Join(escaped, "/")
}

// call sends a request; the answer is printed as it came with -o json, else show gets it decoded.
func call[T any](ctx context.Context, a *app, s *session, method, path string, in any, show func(T) error, opts ...client.Option) error {
	raw, err := s.Raw(ctx, method, path, nil, in, opts...)
	if err != nil {
		return err
	}
	return answer(a, raw, show)
}

func get[T any](ctx context.Context, a *app, s *session, path string, show func(T) error) error {
	return call(ctx, a, s, http.MethodGet, path, nil, show)
}

// remove deletes something and says so.
func (a *app) remove(ctx context.Context, s *session, path string, query url.Values, done string, opts ...client.Option) error {
	raw, err := s.Raw(ctx, http.MethodDelete, path, query, nil, opts...)
	if err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(raw)
	}
	return a.say("%s", done)
}

func answer[T any](a *app, raw []byte, show func(T) error) error {
	if a.json() {
		return a.printJSON(raw)
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return fleet.NewError(fleet.ErrCorrupt, "", "the API's answer cannot be read (%v): is this fleetctl as new as the members?", err)
	}
	return show(v)
}

// read fetches an object, as it came and decoded.
func (s *session) read(ctx context.Context, path string, query url.Values, raw *[]byte, v any) error {
	b, err := s.Raw(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	*raw = b
	if err := json.Unmarshal(b, v); err != nil {
		return fleet.NewError(fleet.ErrCorrupt, "", "the API's answer cannot be read (%v): is this fleetctl as new as the members?", err)
	}
	return nil
}
