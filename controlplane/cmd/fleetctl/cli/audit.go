package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "Who changed what", "Every change is an audit entry; each holds the hash of the one before, so that none can be changed or removed unseen.",
		a.auditList(), a.auditVerify(), a.auditExport())
}

func auditListing(after uint64, limit int) listing {
	l := listing{path: apiPath("audit"), query: url.Values{}, cursor: "after", limit: limit}
	if after > 0 {
		l.query.Set("after", strconv.FormatUint(after, 10))
	}
	return l
}

func (a *app) auditList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List audit entries, oldest first; a tenant sees its own", Args: exact(),
		Example: "  fleetctl audit list --after 1200 --limit 20",
	}
	after := cmd.Flags().Uint64("after", 0, "entries behind this number")
	limit := cmd.Flags().Int("limit", 50, "how many at most")
	all := cmd.Flags().Bool("all", false, "all of them")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		n, err := limitOf(cmd, *limit, *all)
		if err != nil {
			return err
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		header := []string{"SEQ", "TIME", "WHO", "PARTY", "OPERATION", "OBJECT", "TENANT", "REASON"}
		return show(cmd.Context(), a, s, auditListing(*after, n), header, func(e fleet.AuditEntry) []any {
			return []any{e.Seq, a.age(e.Time), e.Name, e.Party, e.Operation, e.Object, e.Tenant, e.Reason}
		})
	}
	return cmd
}

func (a *app) auditVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify [FILE]", Short: "Check that no audit entry was changed, removed or added", Args: atMost("FILE"),
		Long: "Check the chain of hashes over all audit entries, from the API or from an export. Exit 1 if it is broken.\n" +
			"A tenant has some of the entries only, so with its token, or with --each, every entry is checked by itself.",
		Example: "  fleetctl audit verify\n  fleetctl audit verify audit.ndjson",
	}
	each := cmd.Flags().Bool("each", false, "the file is a tenant's export, which has gaps: check every entry by itself")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c := &chain{single: *each}
		var err error
		if len(args) > 0 {
			err = a.verifyFile(args[0], c)
		} else {
			err = a.verifyAPI(cmd.Context(), c)
		}
		if err != nil {
			return err
		}
		if a.json() {
			return a.printValue(map[string]any{"entries": c.count, "first": c.first, "last": c.last.Seq, "hash": c.last.Hash, "chained": !c.single})
		}
		return a.say("%s", c)
	}
	return cmd
}

// chain checks entries as they come, without keeping them.
type chain struct {
	// single: entries of others lie between, so each is checked by itself.
	single bool
	count  int
	first  uint64
	last   fleet.AuditEntry
}

func (c *chain) add(e fleet.AuditEntry) error {
	run := []fleet.AuditEntry{c.last, e}
	if c.count == 0 || c.single {
		run = run[1:]
	}
	if e.Seq == 1 && e.Prev != fleet.AuditGenesis {
		return fleet.NewError(fleet.ErrCorrupt, "audit", "audit entry 1 follows another: entries before it were removed")
	}
	if err := fleet.VerifyAudit(run); err != nil {
		return err
	}
	if c.count == 0 {
		c.first = e.Seq
	}
	c.count++
	c.last = e
	return nil
}

func (c *chain) String() string {
	switch {
	case c.count == 0:
		return "there are no audit entries"
	case c.single:
		return fmt.Sprintf("%d audit entries are as they were written; whether some are missing between them is for the operator to check", c.count)
	}
	return fmt.Sprintf("%d audit entries are as they were written, %d to %d; the last has the hash %s", c.count, c.first, c.last.Seq, c.last.Hash)
}

func (a *app) verifyAPI(ctx context.Context, c *chain) error {
	s, err := a.session()
	if err != nil {
		return err
	}
	who, err := client.Get[client.Whoami](ctx, s.Client, apiPath("whoami"), nil)
	if err != nil {
		return err
	}
	c.single = c.single || who.Token.Role == fleet.RoleTenant
	err = auditListing(0, 0).each(ctx, s, func(items []json.RawMessage) error {
		for _, item := range items {
			var e fleet.AuditEntry
			if err := json.Unmarshal(item, &e); err != nil {
				return fleet.NewError(fleet.ErrCorrupt, "audit", "an audit entry after %d cannot be read: %v", c.last.Seq, err)
			}
			if err := c.add(e); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && !c.single && c.count > 0 && c.first != 1 {
		return fleet.NewError(fleet.ErrCorrupt, "audit", "the first audit entry is %d, not 1: entries before it were removed", c.first)
	}
	return err
}

// maxAuditLine bounds one line of an export.
const maxAuditLine = 4 << 20

// verifyFile checks an export; one that begins after the first entry is checked from there.
func (a *app) verifyFile(path string, c *chain) error {
	r := a.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return fleet.Invalid("file", "%v", err)
		}
		defer func() { _ = f.Close() }() // it was only read
		r = f
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxAuditLine)
	for n := 1; lines.Scan(); n++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var e fleet.AuditEntry
		if err := fleet.DecodeStrict(lines.Bytes(), &e); err != nil {
			return fleet.NewError(fleet.ErrCorrupt, "file", "%s:%d: %v", path, n, err)
		}
		if err := c.add(e); err != nil {
			return fleet.NewError(fleet.ErrCorrupt, "file", "%s:%d: %v", path, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fleet.Invalid("file", "read %s: %v", path, err)
	}
	return nil
}

func (a *app) auditExport() *cobra.Command {
	return &cobra.Command{
		Use: "export FILE", Short: "Write all audit entries to a file, one JSON object a line", Args: exact("FILE"),
		Long:    "Write all audit entries to a file of mode 0600, one JSON object a line, as the API gave them; - is the standard output. The file appears when it is complete.",
		Example: "  fleetctl audit export audit.ndjson && fleetctl audit verify audit.ndjson",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			count := 0
			fill := func(w io.Writer) error {
				return auditListing(0, 0).each(cmd.Context(), s, func(items []json.RawMessage) error {
					for _, item := range items {
						count++
						if err := write(w, append(item, '\n')); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if args[0] == "-" {
				return fill(a.Out)
			}
			if err := replaceFile(args[0], func(f *os.File) error { return fill(f) }); err != nil {
				return err
			}
			a.note("%d audit entries are in %s", count, args[0])
			return nil
		},
	}
}
