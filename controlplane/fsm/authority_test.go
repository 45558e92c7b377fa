package fsm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func (d dice) authority() command.Body {
	dir := pick(d, "https://a.example/dir", "https://b.example/dir", "")
	if d.IntN(2) == 0 {
		return command.OrderProgress{ID: pick[fleet.OrderID](d, "oa", "ob", "oa2"), Asked: d.IntN(2) == 0, Authority: dir}
	}
	return command.AuthorityObserve{Authority: fleet.Authority{Directory: dir, Failures: d.IntN(5)}}
}

func TestWhatIsAskedOfAuthoritiesIsCounted(t *testing.T) {
	const dir = "https://ca.example/dir"
	asked := command.OrderProgress{ID: "oa2", Asked: true, Authority: dir}
	of := func(n int) func(*testing.T, *state.View) {
		return func(t *testing.T, v *state.View) {
			if got, _ := v.Authority(dir).Ordered(noon, 1); got != n {
				t.Errorf("%d orders, want %d", got, n)
			}
		}
	}
	away := command.AuthorityObserve{Authority: fleet.Authority{Directory: dir, Failures: 9, Problem: "503", Rest: noon.Add(time.Minute), Orders: []fleet.AuthorityCount{{At: noon, N: 100}}}}
	var many []command.Body
	for i := range fleet.MaxAuthorities {
		many = append(many, command.AuthorityObserve{Authority: fleet.Authority{Directory: fmt.Sprintf("https://ca%d.example/dir", i)}})
	}
	run(t, []testCase{
		{name: "an order that is about to be asked for counts", when: asked, entries: -1, then: of(1)},
		{name: "once more when it is asked for anew", given: []command.Body{asked}, when: asked, entries: -1, then: of(2)},
		{name: "its URL does not count", given: []command.Body{asked}, when: command.OrderProgress{ID: "oa2", Asked: true, URL: "https://ca.example/order/1", Authority: dir}, entries: -1, then: of(1)},
		{name: "an order without an authority counts for none", when: command.OrderProgress{ID: "oa2", Asked: true}, entries: -1, then: of(0)},
		{name: "the certificate names its authority", given: []command.Body{asked}, when: commit("oa2", "a.example.com", "acme", 2), object: "certificate/a.example.com", of: "acme", then: func(t *testing.T, v *state.View) {
			if c, _ := v.Certificate("a.example.com"); c.Authority != dir {
				t.Errorf("authority %q", c.Authority)
			}
		}},
		{name: "an observation keeps what was counted", given: []command.Body{asked}, when: away, entries: -1, then: func(t *testing.T, v *state.View) {
			of(1)(t, v)
			if a := v.Authority(dir); !a.Away() || a.Failures != fleet.AuthorityAway || a.Problem != "503" || !a.Rest.Equal(noon.Add(time.Minute)) {
				t.Errorf("%+v", a)
			}
		}},
		{name: "an authority without a directory is refused", when: command.AuthorityObserve{}, refused: fleet.ErrInvalid},
		{name: "an authority with a long problem is refused", when: with(away, func(b *command.AuthorityObserve) { b.Authority.Problem = strings.Repeat("x", 3000) }), refused: fleet.ErrTooLarge},
		{name: "there is a limit of authorities", given: many, when: away, refused: fleet.ErrTooLarge, says: "the limit is 16"},
		{name: "an order remembers no more failures than the limit", when: with(order("oa2", "a.example.com", "acme", 2), func(b *command.OrderPut) {
			b.Create, b.Order.Failed = false, make([]time.Time, fleet.MaxOrderFailures+1)
		}), refused: fleet.ErrTooLarge},
	})
}
