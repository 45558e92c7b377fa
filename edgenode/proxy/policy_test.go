package proxy_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
)

// protected is a host as a node makes it of its configuration.
func protected(t *testing.T, name fleet.HostName, tenant fleet.TenantID, o fleet.Endpoint, c fleet.HostTLS) *config.Host {
	t.Helper()
	h, err := config.NewHost(tenant, fleet.HostConfig{
		Name: name, Mode: fleet.ModeOff, TLS: c, Origins: []fleet.Origin{{URL: o.Scheme + "://" + o.Address()}},
	}, loopback, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// shows is a client that shows a certificate, nil for none, by HTTP/2 or not.
func (e *edge) shows(h2 bool, cert *tls.Certificate) *http.Client {
	c := e.client(h2)
	tr := c.Transport.(*http.Transport)
	tr.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil
		}
		return cert, nil
	}
	return c
}

func TestStrictTransportSecurity(t *testing.T) {
	const ours = "max-age=31536000; includeSubDomains; preload"
	own := originServer(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Strict-Transport-Security", "max-age=1") })
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Judge = judgeFunc(func(in waf.Input) waf.Decision { return waf.Decision{Block: in.Host == "refused.example.com"} })
	}, own)
	strict := protected(t, hostName, "a", own, fleet.HostTLS{HSTS: fleet.HSTS{MaxAge: 31536000, IncludeSubdomains: true, Preload: true}})
	strict.Mode = fleet.ModeBlock
	refused := *strict
	refused.Name = "refused.example.com"
	e.serve(strict, &refused, protected(t, otherName, "a", own, fleet.HostTLS{}))
	c := e.client(true)
	for _, tc := range []struct{ name, url, want string }{
		{"an answer has the edge's instead of the origin's", "https://" + hostName, ours},
		{"a refusal has it too", "https://refused.example.com", ours},
		{"a host without leaves the origin's", "https://" + otherName, "max-age=1"},
	} {
		if got := do(t, c, http.MethodGet, tc.url, nil).Header["Strict-Transport-Security"]; len(got) != 1 || got[0] != tc.want {
			t.Errorf("%s: %q", tc.name, got)
		}
	}
	// RFC 6797 section 7.2: never without TLS.
	if a := do(t, e.client(false), http.MethodGet, "http://"+hostName+"/x?y", nil); a.StatusCode != 308 || a.Header.Get("Strict-Transport-Security") != "" {
		t.Errorf("without TLS: %d %v", a.StatusCode, a.Header)
	}
	if a := do(t, c, http.MethodGet, "https://"+otherName, nil, "Host", "nobody.example.com"); a.Header.Get("Strict-Transport-Security") != "" {
		t.Errorf("a host that is not served: %v", a.Header)
	}
}

func TestMinimumVersion(t *testing.T) {
	o := originServer(t, hello)
	e := newEdge(t, nil, o)
	e.serve(protected(t, hostName, "a", o, fleet.HostTLS{MinVersion: "1.3"}), protected(t, otherName, "a", o, fleet.HostTLS{}))
	for name, tc := range map[string]struct {
		server string
		max    uint16
		ok     bool
	}{
		"1.3 where 1.3 is asked":        {hostName, tls.VersionTLS13, true},
		"1.2 where 1.3 is asked":        {hostName, tls.VersionTLS12, false},
		"in other case":                 {"API.example.COM", tls.VersionTLS12, false},
		"1.2 where nothing is asked":    {otherName, tls.VersionTLS12, true},
		"1.3 where nothing is asked":    {otherName, tls.VersionTLS13, true},
		"less than the edge has at all": {otherName, tls.VersionTLS11, false},
	} {
		_, err := handshake(e, &tls.Config{ServerName: tc.server, MinVersion: tls.VersionTLS10, MaxVersion: tc.max}) //nolint:gosec // what is refused
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A connection of TLS 1.2 for the one host does not serve the other.
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		c.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
		for host, want := range map[string]int{otherName: 200, hostName: 421} {
			if a := do(t, c, http.MethodGet, "https://"+otherName+"/", nil, "Host", host); a.StatusCode != want {
				t.Errorf("%s: %d, want %d", host, a.StatusCode, want)
			}
		}
	})
}

func TestClientCertificates(t *testing.T) {
	ca, foreign := newAuthority("clients"), newAuthority("others")
	good, bad := ca.issue(t, "device-1"), foreign.issue(t, "device-1")
	o := originServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Header["Client-Cert"], r.Header["Client-Cert-Chain"], r.Header["Client_cert"])
	})
	e := newEdge(t, nil, o)
	e.serve(
		protected(t, hostName, "a", o, fleet.HostTLS{ClientAuth: fleet.ClientAuthRequired, ClientCA: ca.pem()}),
		protected(t, otherName, "a", o, fleet.HostTLS{ClientAuth: fleet.ClientAuthOptional, ClientCA: ca.pem()}),
		protected(t, "open.example.org", "a", o, fleet.HostTLS{}),
	)
	told := "[:" + base64.StdEncoding.EncodeToString(good.Certificate[0]) + ":] [] []"
	for _, tc := range []struct {
		name, host string
		cert       *tls.Certificate
		want       string // empty: no answer
	}{
		{"required and shown", hostName, good, told},
		{"required and not shown", hostName, nil, ""},
		{"required and of another authority", hostName, bad, ""},
		{"optional and shown", otherName, good, told},
		{"optional and not shown", otherName, nil, "[] [] []"},
		{"optional and of another authority", otherName, bad, ""},
		{"not asked for", "open.example.org", good, "[] [] []"},
	} {
		for _, h2 := range []bool{false, true} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+tc.host+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = http.Header{"Client-Cert": {":forged:"}, "Client-Cert-Chain": {":forged:"}, "Client_cert": {":forged:"}}
			res, err := e.shows(h2, tc.cert).Do(req)
			if err != nil {
				if tc.want != "" {
					t.Errorf("%s (h2 %v): %v", tc.name, h2, err)
				}
				continue
			}
			b, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if string(b) != tc.want || tc.want == "" {
				t.Errorf("%s (h2 %v): %d %q, want %q", tc.name, h2, res.StatusCode, b, tc.want)
			}
		}
	}
}

func TestAConnectionServesWhatItsClientHasShown(t *testing.T) {
	ca, foreign := newAuthority("clients"), newAuthority("others")
	o := originServer(t, hello)
	e := newEdge(t, nil, o)
	must := fleet.HostTLS{ClientAuth: fleet.ClientAuthRequired, ClientCA: ca.pem()}
	e.serve(
		protected(t, "plain.a.example", "a", o, fleet.HostTLS{}), protected(t, "plain2.a.example", "a", o, fleet.HostTLS{}),
		protected(t, "must.a.example", "a", o, must), protected(t, "must2.a.example", "a", o, must),
		protected(t, "may.a.example", "a", o, fleet.HostTLS{ClientAuth: fleet.ClientAuthOptional, ClientCA: ca.pem()}),
		protected(t, "else.a.example", "a", o, fleet.HostTLS{ClientAuth: fleet.ClientAuthRequired, ClientCA: foreign.pem()}),
		protected(t, "plain.b.example", "b", o, fleet.HostTLS{}), protected(t, "must.b.example", "b", o, must),
	)
	cert := ca.issue(t, "device-1")
	for _, tc := range []struct {
		sni, host string
		want      int
	}{
		{"plain.a.example", "plain2.a.example", 200},
		{"must.a.example", "must2.a.example", 200},
		{"must.a.example", "must.a.example", 200},
		{"plain.a.example", "must.a.example", 421},
		{"may.a.example", "must.a.example", 421},
		{"must.a.example", "may.a.example", 421},
		{"must.a.example", "else.a.example", 421},
		{"must.a.example", "plain.a.example", 421},
		{"plain.a.example", "plain.b.example", 421},
		{"must.a.example", "must.b.example", 421},
		{"plain.b.example", "must.a.example", 421},
		{"plain.a.example", "nobody.a.example", 421},
	} {
		for _, h2 := range []bool{false, true} {
			c := e.shows(h2, cert)
			if a := do(t, c, http.MethodGet, "https://"+tc.sni+"/", nil, "Host", tc.host); a.StatusCode != tc.want {
				t.Errorf("%s on a connection for %s (h2 %v): %d, want %d", tc.host, tc.sni, h2, a.StatusCode, tc.want)
			}
			c.CloseIdleConnections()
		}
	}
}

func TestAStricterPolicyHoldsForWhatIsOpen(t *testing.T) {
	first, second := newAuthority("first"), newAuthority("second")
	o := originServer(t, hello)
	for version, max := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(version, func(t *testing.T) {
			e := newEdge(t, nil, o)
			ask := func(a *authority) { // nil: nobody shows anything
				c := fleet.HostTLS{}
				if a != nil {
					c = fleet.HostTLS{ClientAuth: fleet.ClientAuthRequired, ClientCA: a.pem()}
				}
				e.serve(protected(t, hostName, "a", o, c))
			}
			// The client has a certificate of either authority, and resumes its session.
			certs := []tls.Certificate{*first.issue(t, "device"), *second.issue(t, "device")}
			fresh := func() *http.Client {
				c := e.client(false)
				tr := c.Transport.(*http.Transport)
				tr.TLSClientConfig.Certificates, tr.TLSClientConfig.MaxVersion = certs, max
				tr.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(4)
				return c
			}
			c := fresh()
			get := func() (int, bool) {
				a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil)
				return a.StatusCode, a.TLS.DidResume
			}
			for i, step := range []struct {
				ask     *authority
				anew    bool // close the connection before
				status  int
				resumed bool
			}{
				{nil, false, 200, false},
				{first, false, 421, false},
				{first, true, 200, false},
				{first, true, 200, true},
				{second, false, 421, true},
				{second, true, 200, false},
				{second, true, 200, true},
				{nil, false, 200, true},
			} {
				ask(step.ask)
				if step.anew {
					c.CloseIdleConnections()
				}
				if status, resumed := get(); status != step.status || resumed != step.resumed {
					t.Errorf("step %d: status %d, resumed %v; want %+v", i, status, resumed, step)
				}
			}
		})
	}
}

func TestChallengesOnTheTLSListener(t *testing.T) {
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Judge = judgeFunc(func(waf.Input) waf.Decision {
			t.Error("a challenge was judged")
			return waf.Decision{Block: true}
		})
	}, originServer(t, echo))
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		const base = "https://" + hostName + "/.well-known/acme-challenge/"
		if a := do(t, c, http.MethodGet, base+"tok-1_A", nil); a.StatusCode != 200 || a.body != "tok-1_A.thumb" {
			t.Errorf("a known token: %d %q", a.StatusCode, a.body)
		}
		if s := do(t, c, http.MethodGet, base+"other", nil, "Cookie", "a=${jndi:x}").seen(t); s.URI != "/.well-known/acme-challenge/other" || s.Header.Get("Cookie") != "" {
			t.Errorf("an unknown token: the origin got %+v", s)
		}
	})
}

func TestWildcardHosts(t *testing.T) {
	var judged fleet.HostName
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Judge = judgeFunc(func(in waf.Input) waf.Decision {
			judged = in.Host
			return waf.Decision{}
		})
	})
	wild := func(name fleet.HostName, origin fleet.Endpoint) *config.Host {
		return &config.Host{Name: name, Tenant: "a", Mode: fleet.ModeBlock, Origins: []fleet.Endpoint{origin}, AllowedOrigins: loopback}
	}
	// The origin is an address, so that it shows the protected name: the wildcard.
	secure := tlsOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, "secure ", r.Host, r.TLS.ServerName)
	}, "*.shop.example")
	e.serve(wild("*.shop.example", secure), wild("api.shop.example", originServer(t, named("exact"))))
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		for name, want := range map[string]string{"one.shop.example": "secure one.shop.example", "api.shop.example": "exact"} {
			if a := do(t, c, http.MethodGet, "https://"+name+"/", nil); a.body != want || judged != fleet.HostName(name) {
				t.Errorf("%s: %d %q, judged as %s", name, a.StatusCode, a.body, judged)
			}
		}
		// Of one host, so one connection may serve them.
		if a := do(t, c, http.MethodGet, "https://one.shop.example/", nil, "Host", "two.shop.example"); a.body != "secure two.shop.example" {
			t.Errorf("two names of one host: %d %q", a.StatusCode, a.body)
		}
	})
	for _, name := range []string{"shop.example", "a.b.shop.example"} {
		if _, err := handshake(e, &tls.Config{ServerName: name, InsecureSkipVerify: true}); err == nil { //nolint:gosec // it must fail before
			t.Errorf("%s was served", name)
		}
	}
	if a := do(t, e.client(false), http.MethodGet, "http://one.shop.example/x", nil); a.StatusCode != 308 || a.Header.Get("Location") != "https://one.shop.example/x" {
		t.Errorf("plain: %d %s", a.StatusCode, a.Header.Get("Location"))
	}
}

func TestLoopsAreFoundAcrossTheFleet(t *testing.T) {
	node := func(id fleet.NodeID, c fleet.ClusterID, origin fleet.Endpoint) (*edge, fleet.Endpoint) {
		e := newEdge(t, func(o *proxy.Options, _ *config.Host) { o.Node, o.Cluster = id, c }, origin)
		at := endpoint(t, "https", e.https.Addr())
		return e, at
	}
	last := originServer(t, func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, len(r.Header["Cdn-Loop"])) })
	_, n2 := node("n2", "c1", last)
	_, far := node("n1", "c2", last)
	one, _ := node("n1", "c1", n2)
	if a := do(t, one.client(true), http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 508 {
		t.Errorf("through another node of the fleet: %d %q, want 508", a.StatusCode, a.body)
	}
	two, _ := node("n9", "c1", far)
	if a := do(t, two.client(true), http.MethodGet, "https://"+hostName+"/", nil, "CDN-Loop", `other; a=", b"`); a.body != "3" {
		t.Errorf("through a node of another fleet: %d %q, want the names of three", a.StatusCode, a.body)
	}
}
