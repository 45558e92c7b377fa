package fsm

import (
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// authority finds the row of a directory. It refuses one row too many.
func (p *processor) authority(directory string) (fleet.Authority, error) {
	if directory == "" || len(directory) > maxURL {
		return fleet.Authority{}, fleet.Invalid("directory", "a directory URL of %d bytes: give 1 to %d", len(directory), maxURL)
	}
	all := p.tx.Authorities()
	i := slices.IndexFunc(all, func(a fleet.Authority) bool { return a.Directory == directory })
	if i >= 0 {
		return all[i], nil
	}
	if len(all) >= fleet.MaxAuthorities {
		return fleet.Authority{}, fleet.NewError(fleet.ErrTooLarge, "directory", "%d certificate authorities are remembered already; the limit is %d", len(all), fleet.MaxAuthorities)
	}
	return fleet.Authority{Directory: directory}, nil
}

func (p *processor) authorityObserve(b *command.AuthorityObserve) (any, error) {
	before, err := p.authority(b.Authority.Directory)
	if err != nil {
		return nil, err
	}
	if len(b.Authority.Problem) > 2*maxURL {
		return nil, fleet.NewError(fleet.ErrTooLarge, "problem", "a problem of %d bytes; the limit is %d", len(b.Authority.Problem), 2*maxURL)
	}
	a := b.Authority
	a.Orders, a.Meta = before.Orders, p.meta(before.Meta)
	a.Failures = min(max(a.Failures, 0), fleet.AuthorityAway)
	p.tx.PutAuthority(a)
	return a, nil
}

// ordered counts an order that an authority is about to be asked for.
func (p *processor) ordered(directory string) error {
	a, err := p.authority(directory)
	if err != nil {
		return err
	}
	a = a.Count(p.header.Time)
	a.Meta = p.meta(a.Meta)
	p.tx.PutAuthority(a)
	return nil
}
