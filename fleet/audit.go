package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Actor is who asked for a mutation.
type Actor struct {
	// Name is a token id for people and programs, or "leader/<loop>" for the control plane itself.
	Name string `json:"name"`
	// Party is the side of the shared-responsibility table.
	Party Party `json:"party"`
	// Source is the remote address, empty for the control plane itself.
	Source string `json:"source,omitempty"`
	// User is the person that the token belongs to, ApprovedBy the second person where two were needed.
	User       UserID `json:"user,omitempty"`
	ApprovedBy UserID `json:"approved_by,omitempty"`
}

// AuditEntry records one mutation: who, why, what before and after. Secrets never appear in Before or After.
type AuditEntry struct {
	// Seq counts entries from 1 without gaps.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Actor
	RequestID string `json:"request_id,omitempty"`
	Reason    string `json:"reason,omitempty"`
	// Operation is the command, for example host_put; Object is what it acted on, for example host/api.example.com.
	Operation string `json:"operation"`
	Object    string `json:"object"`
	// Tenant is whose object it was; a tenant sees its own entries.
	Tenant TenantID        `json:"tenant,omitempty"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
	// Prev is the Hash of the entry before (64 zeros for the first); Hash covers this entry with Hash empty.
	Prev string `json:"prev"`
	Hash string `json:"hash"`
}

// AuditGenesis is Prev of the first entry.
const AuditGenesis = "0000000000000000000000000000000000000000000000000000000000000000"

// Chain returns e chained to prev, with its hash filled in.
func (e AuditEntry) Chain(prev string) (AuditEntry, error) {
	e.Prev, e.Hash = prev, ""
	b, err := json.Marshal(e)
	if err != nil {
		return e, err
	}
	sum := sha256.Sum256(b)
	e.Hash = hex.EncodeToString(sum[:])
	return e, nil
}

// VerifyAudit checks a run of consecutive entries; the error names the first that was changed, removed or added.
func VerifyAudit(entries []AuditEntry) error {
	for i, e := range entries {
		if (e.Seq == 1) != (e.Prev == AuditGenesis) {
			return NewError(ErrCorrupt, "audit", "audit entry %d claims a wrong place at the start of the chain: entries were removed or added", e.Seq)
		}
		if i > 0 && (e.Seq != entries[i-1].Seq+1 || e.Prev != entries[i-1].Hash) {
			return NewError(ErrCorrupt, "audit", "audit entry %d does not follow entry %d: entries were removed, added or reordered", e.Seq, entries[i-1].Seq)
		}
		want, err := e.Chain(e.Prev)
		if err != nil {
			return err
		}
		if want.Hash != e.Hash {
			return NewError(ErrCorrupt, "audit", "audit entry %d was changed after it was written", e.Seq)
		}
	}
	return nil
}
