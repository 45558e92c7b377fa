package cli

import (
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// showServices prints what the Consul services among a host's origins stand for; nothing for a host without.
func (a *app) showServices(services []fleet.ResolvedOrigin) error {
	if len(services) == 0 {
		return nil
	}
	if err := a.say("\nConsul services:"); err != nil {
		return err
	}
	t := newTable(a.Out, "SERVICE", "STATE", "REASON", "SINCE", "INSTANCES")
	var said []string
	for _, s := range services {
		var urls []string
		for _, i := range s.Instances {
			urls = append(urls, i.URL)
		}
		t.row(s.URL, s.Condition.State, s.Condition.Reason, a.age(s.Condition.Since), list(urls))
		if text := conditionText(s.Condition); text != "" {
			said = append(said, s.URL+": "+clean(text))
		}
	}
	if err := t.flush(); err != nil || len(said) == 0 {
		return err
	}
	return a.say("\n%s", strings.Join(said, "\n"))
}
