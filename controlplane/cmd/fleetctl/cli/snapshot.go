package cli

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
)

func (a *app) clusterSnapshot() *cobra.Command {
	return group("snapshot", "Backups of the control plane's state", "A snapshot is the whole state of the control plane in one file. Private keys in it are sealed: without the key-encryption key it restores nothing.",
		a.snapshotSave(), a.snapshotInspect(), a.snapshotRestore())
}

func (a *app) snapshotSave() *cobra.Command {
	return &cobra.Command{
		Use: "save FILE", Short: "Write a snapshot to a file; - is the standard output", Args: exact("FILE"),
		Long:    "Write a snapshot, with everything that was acknowledged before, to a file of mode 0600. The file appears when it is complete and was verified.",
		Example: "  fleetctl cluster snapshot save edgefleet.snapshot",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			var e snapshot.Envelope
			save := func(w io.Writer) error {
				e, err = saveSnapshot(cmd.Context(), s, w)
				return err
			}
			if args[0] == "-" {
				return save(a.Out)
			}
			if err := replaceFile(args[0], func(f *os.File) error { return save(f) }); err != nil {
				return err
			}
			if a.json() {
				return a.printValue(e)
			}
			return a.say("%s holds cluster %s, incarnation %d, at index %d; state hash %s", args[0], e.Cluster, e.Incarnation, e.Index, e.StateHash)
		},
	}
}

// saveSnapshot downloads a snapshot and verifies it on the way.
func saveSnapshot(ctx context.Context, s *session, w io.Writer) (snapshot.Envelope, error) {
	pr, pw := io.Pipe()
	type verdict struct {
		e   snapshot.Envelope
		err error
	}
	done := make(chan verdict, 1)
	go func() {
		e, err := snapshot.Verify(pr)
		_, rest := io.Copy(io.Discard, pr) // what is behind the content, if anything
		if err == nil {
			err = rest
		}
		done <- verdict{e, err}
	}()
	err := s.Download(ctx, apiPath("cluster", "snapshot"), io.MultiWriter(w, pw))
	_ = pw.CloseWithError(err) // it always returns nil
	v := <-done
	if err != nil {
		return v.e, err
	}
	return v.e, v.err
}

func (a *app) snapshotInspect() *cobra.Command {
	return &cobra.Command{
		Use: "inspect FILE", Short: "Say what is in a snapshot, and verify every byte of it", Args: exact("FILE"),
		Long:    "Say what is in a snapshot and verify every byte of it, without the API. Exit 1 if it is damaged. Whether a key-encryption key fits is for a member to say.",
		Example: "  fleetctl cluster snapshot inspect edgefleet.snapshot",
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := openSnapshot(args[0])
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }() // it was only read
			e, err := snapshot.Verify(f)
			if err != nil {
				return err
			}
			if a.json() {
				return a.printValue(e)
			}
			return a.showEnvelope(e)
		},
	}
}

func openSnapshot(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fleet.Invalid("file", "%v", err)
	}
	return f, nil
}

func (a *app) showEnvelope(e snapshot.Envelope) error {
	t := newTable(a.Out)
	t.row("cluster", e.Cluster)
	t.row("incarnation", e.Incarnation)
	t.row("index", e.Index)
	t.row("term", e.Term)
	t.row("taken", a.age(e.Time))
	t.row("by", e.Member)
	t.row("software", e.Software)
	t.row("bytes", e.Bytes)
	t.row("state hash", e.StateHash)
	t.row("sha256", e.SHA256)
	if err := t.flush(); err != nil {
		return err
	}
	if err := a.say(""); err != nil {
		return err
	}
	t = newTable(a.Out, "TABLE", "ROWS")
	for _, name := range slices.Sorted(maps.Keys(e.Rows)) {
		t.row(name, e.Rows[name])
	}
	return t.flush()
}

const restoreLong = `Go back to what people had decided when a snapshot was taken: tenants, hosts, rules, node groups. What happened since
stays: members, enrolled and revoked nodes, users and tokens, the cluster's keys, newer certificates, the audit log.

The restore begins a new incarnation. Its statement is signed here, with the recovery key; the key itself is not sent.
Nodes follow at their next poll; until then, and if the restore fails, they serve what they have.

To bring a cluster back on an empty host, use 'controlplane init --from-snapshot'.`

func (a *app) snapshotRestore() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Go back to the state of a snapshot, in a running cluster", Args: exact("FILE"), Long: restoreLong,
		Example: "  fleetctl cluster snapshot restore edgefleet.snapshot --recovery-key recovery.key",
	}
	recovery := recoveryKeyFlag(cmd)
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *recovery == "" {
			return usagef(cmd, "--recovery-key is missing: a restore begins a new incarnation, which nodes follow only if the recovery key signed it")
		}
		f, err := openSnapshot(args[0])
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // it was only read
		e, err := snapshot.Verify(f)
		if err != nil {
			return err
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		c, err := client.Get[client.ClusterStatus](cmd.Context(), s.Client, apiPath("cluster"), nil)
		if err != nil {
			return err
		}
		if c.ID != e.Cluster {
			return fleet.NewError(fleet.ErrConflict, "file", "the snapshot is of cluster %s, the API is that of %s: to bring a cluster back on an empty host, use 'controlplane init --from-snapshot'", e.Cluster, c.ID)
		}
		signed, err := a.signIncarnation(*recovery, c.Cluster, max(c.Incarnation, e.Incarnation)+1)
		if err != nil {
			return err
		}
		if err := a.confirm(cmd, *yes, fmt.Sprintf("going back to index %d, %s, in cluster", e.Index, a.age(e.Time)), string(c.ID)); err != nil {
			return err
		}
		return a.upload(cmd.Context(), s, f, signed)
	}
	return cmd
}

// upload sends a snapshot with its digest and the statement.
func (a *app) upload(ctx context.Context, s *session, f *os.File, signed fleet.SignedIncarnation) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fleet.Invalid("file", "%v", err)
	}
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return fleet.Invalid("file", "%v", err)
	}
	statement, err := json.Marshal(signed)
	if err != nil {
		return fmt.Errorf("encode statement: %w", err)
	}
	var rec fleet.IncarnationRecord
	raw, err := s.Upload(ctx, apiPath("cluster", "restores"), map[string]string{
		"Content-Type":        snapshot.MediaType,
		"Content-Digest":      "sha-256=:" + base64.StdEncoding.EncodeToString(sum.Sum(nil)) + ":",
		"Edgefleet-Statement": base64.StdEncoding.EncodeToString(statement),
	}, f, size, &rec)
	var held *client.Held
	if errors.As(err, &held) {
		a.note("when it is approved, run this command again with the same file, whose bytes were approved")
	}
	if err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(raw)
	}
	return a.say("the state is restored; incarnation %d begins, and nodes follow at their next poll: see 'fleetctl node list' and 'fleetctl ruleset status'", rec.Number)
}

func recoveryKeyFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("recovery-key", "", "file with the recovery key, as 'controlplane init' wrote it; it is read here and not sent")
}

// signIncarnation signs the statement of an incarnation with the recovery key in a file.
func (a *app) signIncarnation(path string, c fleet.Cluster, number uint64) (fleet.SignedIncarnation, error) {
	b, err := a.readFile("recovery-key", path)
	if err != nil {
		return fleet.SignedIncarnation{}, err
	}
	key, err := head.ParseRecoveryKey(b, c.RecoveryKey)
	if err != nil {
		return fleet.SignedIncarnation{}, err
	}
	return head.SignIncarnation(head.Incarnation{Cluster: c.ID, Number: number, HeadKeys: c.HeadKeys, Time: a.Now().UTC()}, key)
}

func (a *app) clusterIncarnation() *cobra.Command {
	return group("incarnation", "Lives of the cluster between restores", "Nodes obey heads in the order of incarnation and generation, and follow a new incarnation only with a statement of the recovery key.",
		a.incarnationList(), a.incarnationStart())
}

func (a *app) incarnationList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the incarnations after the first", Example: "  fleetctl cluster incarnation list", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.session()
			if err != nil {
				return err
			}
			return show(cmd.Context(), a, s, listing{path: apiPath("cluster", "incarnations")}, []string{"INCARNATION", "FROM", "CAUSE", "SNAPSHOT", "SIGNED", "BEGAN"}, func(r fleet.IncarnationRecord) []any {
				from, signed := "", "no: nodes do not follow it"
				if r.Snapshot != nil {
					from = fmt.Sprintf("index %d of incarnation %d", r.Snapshot.Index, r.Snapshot.Incarnation)
				}
				if r.Statement != nil {
					signed = "yes"
				}
				return []any{r.Number, r.From, r.Cause, from, signed, a.age(r.CreatedAt)}
			})
		},
	}
}

func (a *app) incarnationStart() *cobra.Command {
	cmd := &cobra.Command{
		Use: "start", Short: "Begin a new incarnation with the recovery key", Args: exact(),
		Long:    "Begin a new incarnation: for a cluster that was recovered without the recovery key at hand, so that its nodes follow it again.",
		Example: "  fleetctl cluster incarnation start --recovery-key recovery.key",
	}
	recovery := recoveryKeyFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *recovery == "" {
			return usagef(cmd, "--recovery-key is missing")
		}
		s, err := a.session()
		if err != nil {
			return err
		}
		c, err := client.Get[client.ClusterStatus](cmd.Context(), s.Client, apiPath("cluster"), nil)
		if err != nil {
			return err
		}
		signed, err := a.signIncarnation(*recovery, c.Cluster, c.Incarnation+1)
		if err != nil {
			return err
		}
		return call(cmd.Context(), a, s, http.MethodPost, apiPath("cluster", "incarnations"), client.IncarnationStart{Statement: signed}, func(r fleet.IncarnationRecord) error {
			return a.say("incarnation %d begins; nodes follow at their next poll", r.Number)
		})
	}
	return cmd
}
