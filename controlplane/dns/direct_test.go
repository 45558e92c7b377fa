package dns_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	mdns "github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/controlplane/dns"
)

// same holds what direct answers against what the server does; it reports whether direct answered.
func same(t *testing.T, src dns.Source, query []byte) bool {
	t.Helper()
	got, ok := dns.Direct(src, query)
	if !ok {
		return false
	}
	var req, answer mdns.Msg
	if err := req.Unpack(query); err != nil {
		t.Fatalf("answered what is no query: %v", err)
	}
	if err := answer.Unpack(got); err != nil {
		t.Fatalf("the answer is malformed: %v", err)
	}
	want := dns.Respond(src, &req, true)
	if d := cmp.Diff(text(want), text(&answer)); d != "" {
		t.Errorf("%s", d)
	}
	return true
}

// text is a message with its records in order, which is random in answers.
func text(m *mdns.Msg) []string {
	out := []string{fmt.Sprintf("%d %d %d %v %v %v %v %v %v", m.Id, m.Opcode, m.Rcode, m.Response, m.Authoritative, m.Truncated, m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData)}
	for _, q := range m.Question {
		out = append(out, q.String())
	}
	var answers []string
	for _, rr := range m.Answer {
		answers = append(answers, rr.String())
	}
	slices.Sort(answers)
	out = append(out, answers...)
	for _, rr := range slices.Concat(m.Ns, m.Extra) {
		out = append(out, rr.String())
	}
	return out
}

func packed(t *testing.T, m *mdns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAddressesAreAnsweredWithoutUnpacking(t *testing.T) {
	src := content()
	src.labels["sixteen"] = many(16)
	for _, tc := range []struct {
		name   string
		query  *mdns.Msg
		change func(*mdns.Msg)
		want   bool
	}{
		{"an IPv4 address", question("abc.edge.example.", mdns.TypeA), nil, true},
		{"an IPv6 address", question("abc.edge.example.", mdns.TypeAAAA), nil, true},
		{"in another spelling", question("aBC.Edge.EXAMPLE.", mdns.TypeA), nil, true},
		{"sixteen addresses", question("sixteen.edge.example.", mdns.TypeA), nil, true},
		{"with EDNS", question("abc.edge.example.", mdns.TypeA), func(m *mdns.Msg) { m.SetEdns0(4096, true) }, true},
		{"with the flags of resolvers", question("abc.edge.example.", mdns.TypeA), func(m *mdns.Msg) { m.CheckingDisabled, m.AuthenticatedData = true, true }, true},
		{"without recursion", question("abc.edge.example.", mdns.TypeA), func(m *mdns.Msg) { m.RecursionDesired = false }, true},
		{"more addresses than an answer has", question("many.edge.example.", mdns.TypeA), nil, false},
		{"no address", question("empty.edge.example.", mdns.TypeA), nil, false},
		{"an unknown label", question("nobody.edge.example.", mdns.TypeA), nil, false},
		{"another type", question("abc.edge.example.", mdns.TypeTXT), nil, false},
		{"the apex", question("edge.example.", mdns.TypeA), nil, false},
		{"below a label", question("a.abc.edge.example.", mdns.TypeA), nil, false},
		{"another zone", question("abc.edgy.example.", mdns.TypeA), nil, false},
		{"a zone with a longer name", question("abc.edge.example.com.", mdns.TypeA), nil, false},
		{"a label with a dot in it", question(`abc.edge\.example.`, mdns.TypeA), nil, false},
		{"an option", question("abc.edge.example.", mdns.TypeA), func(m *mdns.Msg) {
			m.SetEdns0(4096, false)
			m.IsEdns0().Option = []mdns.EDNS0{&mdns.EDNS0_COOKIE{Code: mdns.EDNS0COOKIE, Cookie: "0123456789abcdef"}}
		}, false},
		{"another version of EDNS", question("abc.edge.example.", mdns.TypeA), func(m *mdns.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetVersion(1) }, false},
		{"an update", question("abc.edge.example.", mdns.TypeA), func(m *mdns.Msg) { m.Opcode = mdns.OpcodeUpdate }, false},
		{"an answer", question("abc.edge.example.", mdns.TypeA), func(m *mdns.Msg) { m.Response = true }, false},
		{"another class", question("abc.edge.example.", mdns.TypeA), func(m *mdns.Msg) { m.Question[0].Qclass = mdns.ClassCHAOS }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.change != nil {
				tc.change(tc.query)
			}
			if got := same(t, src, packed(t, tc.query)); got != tc.want {
				t.Errorf("answered directly: %v", got)
			}
		})
	}
}

func TestADirectAnswerSpreadsLoadByWeight(t *testing.T) {
	src := content()
	src.labels["light"] = []dns.Edge{edge(10, "198.51.100.1"), edge(1, "198.51.100.2")}
	query := packed(t, question("light.edge.example.", mdns.TypeA))
	first, both := map[netip.Addr]int{}, 0
	const rounds = 2000
	for range rounds {
		b, ok := dns.Direct(src, query)
		var m mdns.Msg
		if err := m.Unpack(b); !ok || err != nil {
			t.Fatal(ok, err)
		}
		a, _ := m.Answer[0].(*mdns.A)
		addr, _ := netip.AddrFromSlice(a.A.To4())
		first[addr]++
		both += len(m.Answer) - 1
	}
	// One in ten has the light one, half of those in front: 200 and 100, with ten standard deviations of room.
	if both < 70 || both > 330 || first[netip.MustParseAddr("198.51.100.2")] > 200 {
		t.Errorf("of %d answers %d have both, first are %v", rounds, both, first)
	}
}

func TestDirectAnswersAreMadeWithoutGarbage(t *testing.T) {
	var src dns.Source = content()
	query := packed(t, question("abc.edge.example.", mdns.TypeA))
	out := make([]byte, 0, mdns.MinMsgSize)
	if n := testing.AllocsPerRun(1000, func() { dns.DirectInto(src, query, out) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDirect(f *testing.F) {
	src := content()
	for _, name := range []string{"abc.edge.example.", "x.dcv.edge.example.", strings.Repeat("a", 63) + ".edge.example."} {
		m := question(name, mdns.TypeA)
		m.SetEdns0(1232, false)
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, query []byte) { same(t, src, query) })
}
