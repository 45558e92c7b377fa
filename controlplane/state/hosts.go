package state

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/hashicorp/go-memdb"

	"github.com/edgefleet/edgefleet/fleet"
)

// Indexes of hosts.
const (
	indexReversed = "reversed"
	indexConsul   = "consul"
	indexDeleting = "deleting"
	indexRegions  = "regions"
)

func hostsTable() *memdb.TableSchema {
	return table(Hosts, field("Name"), by(indexTenant, "Tenant"),
		&memdb.IndexSchema{Name: indexReversed, Unique: true, Indexer: reversedName{}},
		&memdb.IndexSchema{Name: indexConsul, Unique: true, AllowMissing: true, Indexer: those(withService)},
		&memdb.IndexSchema{Name: indexDeleting, Unique: true, AllowMissing: true, Indexer: those(deleting)},
		&memdb.IndexSchema{Name: indexRegions, Unique: true, AllowMissing: true, Indexer: those(inRegions)})
}

// reversed is a name label by label from the right, so that all names below one have what it begins with in common.
func reversed(n fleet.HostName) string {
	labels := strings.Split(string(n), ".")
	slices.Reverse(labels)
	return strings.Join(labels, ".")
}

// reversedName indexes hosts by their reversed names.
type reversedName struct{}

// FromObject implements memdb.SingleIndexer.
func (reversedName) FromObject(raw any) (bool, []byte, error) {
	h, ok := raw.(*fleet.Host)
	if !ok {
		return false, nil, fmt.Errorf("%T is no host", raw)
	}
	return true, []byte(reversed(h.Name)), nil
}

// FromArgs implements memdb.Indexer.
func (reversedName) FromArgs(args ...any) ([]byte, error) { return nameOf(args) }

// PrefixFromArgs implements memdb.PrefixIndexer.
func (reversedName) PrefixFromArgs(args ...any) ([]byte, error) { return nameOf(args) }

// those indexes, by name, the hosts that it holds for: few, of hosts that may be many.
type those func(*fleet.Host) bool

// FromObject implements memdb.SingleIndexer.
func (holds those) FromObject(raw any) (bool, []byte, error) {
	h, ok := raw.(*fleet.Host)
	if !ok {
		return false, nil, fmt.Errorf("%T is no host", raw)
	}
	if !holds(h) {
		return false, nil, nil // nil, else memdb takes what it knew for what is still there
	}
	return true, []byte(h.Name), nil
}

// FromArgs implements memdb.Indexer.
func (those) FromArgs(args ...any) ([]byte, error) { return nameOf(args) }

func withService(h *fleet.Host) bool {
	return !h.Deleting() && slices.ContainsFunc(h.Spec.Origins, fleet.Origin.IsConsul)
}

func deleting(h *fleet.Host) bool { return h.Deleting() }

func inRegions(h *fleet.Host) bool { return !h.Deleting() && len(h.Spec.Regions) > 0 }

func nameOf(args []any) ([]byte, error) {
	if len(args) == 1 {
		if s, ok := args[0].(string); ok {
			return []byte(s), nil
		}
	}
	return nil, fmt.Errorf("a name is needed, not %v", args)
}

// HostsBelow yields the hosts that are names below h.
func (v *View) HostsBelow(h fleet.HostName) iter.Seq[fleet.Host] {
	it, err := v.txn.Get(string(Hosts), indexReversed+"_prefix", reversed(h)+".")
	if err == nil {
		v.reads.add(it.WatchCh())
	}
	return rows[fleet.Host](it, err)
}

// HostsAbove yields the hosts that are names above h, or wildcards over it.
func (v *View) HostsAbove(h fleet.HostName) iter.Seq[fleet.Host] {
	return func(yield func(fleet.Host) bool) {
		for _, above, more := strings.Cut(string(h), "."); more; _, above, more = strings.Cut(above, ".") {
			for _, name := range []fleet.HostName{fleet.HostName(above), fleet.HostName("*." + above)} {
				if found, ok := v.Host(name); ok && name != h && !yield(found) {
					return
				}
			}
		}
	}
}

// HostsWithServices lists the hosts of which an origin is a Consul service.
func (v *View) HostsWithServices() []fleet.Host { return list[fleet.Host](v, Hosts, indexConsul) }

// HostsDeleting lists the hosts that are being deleted.
func (v *View) HostsDeleting() []fleet.Host { return list[fleet.Host](v, Hosts, indexDeleting) }

// HostsInRegions lists the hosts that are bound to regions, but for those that are being deleted.
func (v *View) HostsInRegions() []fleet.Host { return list[fleet.Host](v, Hosts, indexRegions) }
