package fleet

import "time"

// ApprovalID names a request that waits for a second person.
type ApprovalID string

// ApprovalState is where an approval is.
type ApprovalState string

// The states of an approval: pending → approved → executed | failed, or pending → denied. One that is pending past its
// end is expired and cannot be decided any more.
const (
	ApprovalPending  ApprovalState = "pending"
	ApprovalApproved ApprovalState = "approved"
	ApprovalExecuted ApprovalState = "executed"
	ApprovalFailed   ApprovalState = "failed"
	ApprovalDenied   ApprovalState = "denied"
)

// Limits of approvals.
const (
	// ApprovalLife is how long an approval can be decided.
	ApprovalLife = 24 * time.Hour
	// MaxApprovals bounds the approvals that are kept; the oldest that are decided or over go first.
	MaxApprovals = 1_000
	// MaxPendingApprovals bounds those that wait.
	MaxPendingApprovals = 100
	// MaxApprovalBody bounds the request of one.
	MaxApprovalBody = 64 << 10
)

// Approval is a request of one person that another has to approve. When they do, the control plane carries it out in the
// name of both, once.
type Approval struct {
	ID    ApprovalID    `json:"id"`
	State ApprovalState `json:"state"`
	// Operation, Method and Path (with the query) are the request, Body is what it carried.
	Operation string `json:"operation"`
	Method    string `json:"method"`
	Path      string `json:"path"`
	Body      string `json:"body,omitempty"`
	// IfMatch is the revision that it was asked for, as in the request.
	IfMatch string `json:"if_match,omitempty"`
	// Requester asked by the token Token, for Reason.
	Requester UserID  `json:"requester"`
	Token     TokenID `json:"token"`
	Reason    string  `json:"reason,omitempty"`
	// ExpiresAt is the end of the time to decide and to carry out.
	ExpiresAt time.Time `json:"expires_at"`
	// Approver decided at DecidedAt.
	Approver  UserID    `json:"approver,omitempty"`
	DecidedAt time.Time `json:"decided_at,omitzero"`
	// RequestID is the request that carried it out; Detail says what came of it, unless it went well.
	RequestID string `json:"request_id,omitempty"`
	Detail    string `json:"detail,omitempty"`
	Meta
}

// Open reports whether the approval waits for a decision.
func (a Approval) Open(now time.Time) bool {
	return a.State == ApprovalPending && now.Before(a.ExpiresAt)
}

// Validate checks the invariants of a.
func (a Approval) Validate() error {
	if err := ValidateID("approval", a.ID); err != nil {
		return err
	}
	switch {
	case a.Requester == "":
		return Invalid("requester", "an approval names who asked")
	case a.Operation == "" || a.Method == "" || a.Path == "":
		return Invalid("operation", "an approval names the request")
	case len(a.Body) > MaxApprovalBody || len(a.Path) > 2048, len(a.IfMatch) > 64:
		return NewError(ErrTooLarge, "body", "the request has %d bytes; the limit of one that needs an approval is %d", len(a.Body), MaxApprovalBody)
	case len(a.Reason) > MaxCommentLength:
		return NewError(ErrTooLarge, "reason", "the reason has %d bytes; the limit is %d", len(a.Reason), MaxCommentLength)
	}
	return nil
}
