package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) dnsCommand() *cobra.Command {
	return group("dns", "The edge zone and its name servers", "", group("zone", "The edge zone", "", a.zoneShow(), a.zoneCheck()))
}

func (a *app) zoneShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the zone, its serial, name servers, secondaries, and which nodes are in it", Args: exact(),
		Long:    "Show the zone as the leader serves it, or without one the member that answers: serial, name servers, secondaries, and which nodes are in DNS and which are not, and why.",
		Example: "  fleetctl dns zone show\n  fleetctl dns zone show -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return get(cmd.Context(), a, s, apiPath("dns", "zone"), a.showZone)
		},
	}
}

func (a *app) showZone(z client.Zone) error {
	t := newTable(a.Out)
	t.row("zone", z.Zone)
	t.row("serial", z.Serial)
	t.row("member", z.Member)
	t.row("names of hosts", z.Labels)
	for _, ns := range z.NameServers {
		t.row("name server", strings.TrimSpace(string(ns.Name)+" "+ns.Address))
	}
	for _, c := range z.CAA {
		t.row("caa", c)
	}
	for _, p := range z.Secondaries {
		t.row("secondary", a.zonePeer(p))
	}
	if z.Push != nil {
		t.row("push", a.zonePeer(*z.Push))
	}
	if err := t.flush(); err != nil || len(z.Sets) == 0 {
		return err
	}
	if err := a.say(""); err != nil {
		return err
	}
	t = newTable(a.Out, "SET", "NODE", "DNS", "SINCE", "BACK")
	for _, s := range z.Sets {
		for _, n := range s.Nodes {
			in := "in"
			if s.Held != nil {
				in = "in, held"
			}
			t.row(s.Key, n, in, "", "")
		}
		for _, o := range s.Out {
			back := ""
			if !o.Returns.IsZero() {
				back = a.age(o.Returns)
			}
			t.row(s.Key, o.Node, "out: "+strings.ReplaceAll(o.Why, "_", " "), a.age(o.At), back)
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, s := range z.Sets {
		if s.Held != nil {
			if err := a.say("\n%s is held since %s: only %d of %d nodes are healthy, so nobody is withdrawn", s.Key, a.age(s.Held.Since), s.Held.Healthy, s.Held.Should); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *app) zonePeer(p client.ZonePeer) string {
	switch {
	case p.Error != "":
		return p.Address + ": " + p.Error
	case p.At.IsZero():
		return p.Address + ": not reached yet"
	}
	return p.Address + ": has been told " + a.age(p.At)
}

func (a *app) zoneCheck() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Ask every name server for the zone and compare serials; exit 1 if one fails", Args: exact(),
		Long:    "Ask every member and every secondary for the zone, by UDP and TCP, from the answering member: whether each answers with authority, how far its serial is behind, whether it names the same name servers, and whether the parent zone delegates to them.",
		Example: "  fleetctl dns zone check",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			var raw []byte
			var checks client.Page[fleet.Check]
			if err := s.read(cmd.Context(), apiPath("dns", "checks"), nil, &raw, &checks); err != nil {
				return err
			}
			return a.showChecks(raw, checks)
		},
	}
}
