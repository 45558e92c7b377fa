package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/audit"
)

func writing(b []byte) func(*os.File) error {
	return func(f *os.File) error { _, err := f.Write(b); return err }
}

// auditParts gets the parts of an export, verifies each and gives it to fn.
type auditParts struct {
	session  *session
	verifier *audit.Verifier
	tenant   string
	from, to uint64
	// stale: from this member itself, as it has it.
	stale bool
}

func (p *auditParts) each(ctx context.Context, fn func(part []byte) error) error {
	for {
		q := url.Values{}
		set(q, "tenant", p.tenant)
		if p.stale {
			q.Set("consistency", "stale")
		}
		q.Set("from", strconv.FormatUint(max(p.from, 1), 10))
		if p.to > 0 {
			q.Set("to", strconv.FormatUint(p.to, 10))
		}
		raw, err := p.session.Raw(ctx, http.MethodGet, apiPath("audit", "export"), q, nil)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(raw) {
			if err := p.verifier.Line(line); err != nil {
				return fmt.Errorf("the export that the API answers is not good: %w", err)
			}
		}
		if err := fn(raw); err != nil {
			return err
		}
		next, until := p.verifier.Next()
		if next == 0 || next > until {
			return nil // Finish says whether it is complete
		}
		p.from, p.to = next, until
	}
}

func (a *app) auditExport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export FILE", Short: "Write audit entries to a file that can be verified offline", Args: exact("FILE"),
		Long: "Write audit entries, the signed checkpoints and a signed end to a file of mode 0600, one JSON object a line; - is the standard output.\n" +
			"The file appears when it is complete; what an interrupted export leaves, FILE.part, is gone on with by the next.\n" +
			"A tenant's export holds its own entries, each with the proof that it stands in the signed chain.",
		Example: "  fleetctl audit export audit.ndjson && fleetctl audit verify audit.ndjson --key audit-key.pem\n  fleetctl audit export --from 120001 audit-since.ndjson",
	}
	from := cmd.Flags().Uint64("from", 1, "first entry")
	to := cmd.Flags().Uint64("to", 0, "last entry; default: the newest")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := a.session()
		if err != nil {
			return err
		}
		p := auditParts{session: s, verifier: audit.NewVerifier(nil), tenant: a.flags.tenant, from: *from, to: *to}
		if args[0] == "-" {
			return p.each(cmd.Context(), func(part []byte) error { return write(a.Out, part) })
		}
		if err := p.toFile(cmd.Context(), args[0]); err != nil {
			return err
		}
		r, err := p.verifier.Finish()
		if err != nil {
			return err
		}
		a.note("%d audit entries, %d to %d, are in %s", r.Entries, r.From, r.To, args[0])
		return nil
	}
	return cmd
}

// toFile writes the export beside path, going on where one broke off, and gives it its name when it is complete.
func (p *auditParts) toFile(ctx context.Context, path string) error {
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fleet.Invalid("file", "%v", err)
	}
	defer func() { _ = f.Close() }() // closed already when all went well
	if err := p.resume(f, path); err != nil {
		return err
	}
	if next, until := p.verifier.Next(); next == 0 || next <= until {
		if next > 0 {
			p.from, p.to = next, until
		}
		if err := p.each(ctx, func(part []byte) error { return write(f, part) }); err != nil {
			return err
		}
	}
	if err = errors.Join(f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".part", path)
	}
	if err != nil {
		return fleet.Invalid("file", "write %s: %v", path, err)
	}
	return nil
}

// resume reads what is there up to the last whole part, and leaves f at its end.
func (p *auditParts) resume(f *os.File, path string) error {
	in := bufio.NewReaderSize(f, 1<<16)
	good, at := int64(0), int64(0)
	for {
		b, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) || len(b) > audit.MaxLine {
			break
		}
		if err != nil {
			return fleet.Invalid("file", "read %s.part: %v", path, err)
		}
		if err := p.verifier.Line(b); err != nil {
			return fleet.NewError(fleet.ErrCorrupt, "file", "%s.part, which an earlier export left, is damaged: remove it (%v)", path, err)
		}
		at += int64(len(b))
		if next, _ := p.verifier.Next(); next > 0 {
			good = at
		}
	}
	if good != at { // the verifier is within a part: begin it anew with what is whole
		if err := f.Truncate(good); err != nil {
			return fleet.Invalid("file", "%v", err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return fleet.Invalid("file", "%v", err)
		}
		p.verifier = audit.NewVerifier(nil)
		return p.resume(f, path)
	}
	if err := f.Truncate(good); err != nil {
		return fleet.Invalid("file", "%v", err)
	}
	if _, err := f.Seek(good, io.SeekStart); err != nil {
		return fleet.Invalid("file", "%v", err)
	}
	return nil
}

func (a *app) auditVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify [FILE]", Short: "Check that no audit entry was changed, removed, added or reordered", Args: atMost("FILE"),
		Long: "Check an export, with nothing but the file and the audit key; or, without FILE, the chain as every member has it now, and that they have the same.\n" +
			"With --key, signatures are checked against the key that you trust; without, against the one that came along, which does not prove who signed. Exit 1 if anything is wrong.",
		Example: "  fleetctl audit verify\n  fleetctl audit verify audit.ndjson --key audit-key.pem",
	}
	keyFile := cmd.Flags().String("key", "", "file with the audit key (fleetctl audit key)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key, err := a.readAuditKey(*keyFile)
		if err != nil {
			return err
		}
		if len(args) == 0 {
			return a.verifyMembers(cmd.Context(), key)
		}
		r := a.In
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return fleet.Invalid("file", "%v", err)
			}
			defer func() { _ = f.Close() }() // it was only read
			r = f
		}
		report, err := audit.Verify(r, key)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if a.json() {
			return a.printValue(report)
		}
		return a.say("%s", verdict(report))
	}
	return cmd
}

func verdict(r audit.Report) string {
	what := fmt.Sprintf("%d audit entries of cluster %s are as they were written, %d to %d; the last has the hash %s", r.Entries, r.Cluster, r.From, r.To, r.Hash)
	if r.Tenant != "" {
		what = fmt.Sprintf("%d audit entries of tenant %s in cluster %s are as they were written, between %d and %d", r.Entries, r.Tenant, r.Cluster, r.From, r.To)
	}
	if !r.Pinned {
		what += "\nsigned by the key that came along: give --key to check that it is this control plane's"
	}
	return what
}

func (a *app) readAuditKey(file string) (ed25519.PublicKey, error) {
	if file == "" {
		return nil, nil
	}
	b, err := a.readFile("key", file)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(b); block != nil {
		if k, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			if key, ok := k.(ed25519.PublicKey); ok {
				return key, nil
			}
		}
	}
	return nil, fleet.Invalid("key", "%s holds no Ed25519 public key in PEM: get it with 'fleetctl audit key'", file)
}

// memberVerdict is what verifying the chain of one member gave.
type memberVerdict struct {
	Member fleet.MemberID `json:"member"`
	audit.Report
	Error string `json:"error,omitempty"`
}

// verifyMembers verifies the chain up to the newest entry as each member has it. A tenant's token verifies its entries
// at the member that answers.
func (a *app) verifyMembers(ctx context.Context, key ed25519.PublicKey) error {
	s, err := a.session()
	if err != nil {
		return err
	}
	newest, err := client.Get[client.Page[fleet.AuditEntry]](ctx, s.Client, apiPath("audit"), url.Values{"newest": {"true"}, "limit": {"1"}})
	if err != nil || len(newest.Items) == 0 {
		return errors.Join(err, a.say("there are no audit entries"))
	}
	status, err := client.Get[client.ClusterStatus](ctx, s.Client, apiPath("cluster"), nil)
	if errors.Is(err, fleet.ErrDenied) {
		status = client.ClusterStatus{Members: []client.MemberStatus{{}}} // a tenant knows no members
	} else if err != nil {
		return err
	}
	var out []memberVerdict
	bad := 0
	for _, m := range status.Members {
		v := a.verifyMember(ctx, m.Member, newest.Items[0].Seq, key)
		if v.Error == "" && len(out) > 0 && out[0].Error == "" && v.Hash != out[0].Hash {
			v.Error = fmt.Sprintf("it has another chain than member %s", out[0].Member)
		}
		if v.Error != "" {
			bad++
		}
		out = append(out, v)
	}
	if err := a.showVerdicts(out); err != nil {
		return err
	}
	if bad > 0 {
		return fleet.NewError(fleet.ErrCorrupt, "audit", "the audit log of %d of %d members is not verified", bad, len(out))
	}
	return nil
}

func (a *app) verifyMember(ctx context.Context, m fleet.Member, to uint64, key ed25519.PublicKey) memberVerdict {
	at := *a
	if m.API != "" {
		at.flags.addr = []string{m.API}
	}
	s, err := at.session()
	if err != nil {
		return memberVerdict{Member: m.ID, Error: err.Error()}
	}
	p := auditParts{session: s, verifier: audit.NewVerifier(key), from: 1, to: to, stale: m.ID != ""}
	err = p.each(ctx, func([]byte) error { return nil })
	r, incomplete := p.verifier.Finish()
	v := memberVerdict{Member: m.ID, Report: r}
	if err == nil {
		err = incomplete
	}
	if err != nil {
		v.Error = err.Error()
	}
	return v
}

func (a *app) showVerdicts(out []memberVerdict) error {
	if a.json() {
		return a.printValue(map[string]any{"items": out})
	}
	t := newTable(a.Out, "MEMBER", "ENTRIES", "FROM", "TO", "HASH", "RESULT")
	for _, v := range out {
		result := "verified"
		if v.Error != "" {
			result = v.Error
		}
		t.row(v.Member, v.Entries, v.From, v.To, v.Hash[:min(12, len(v.Hash))], result)
	}
	return t.flush()
}
