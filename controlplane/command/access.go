package command

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// The commands of people's access.
type (
	// UserPut writes a user's spec. Answers fleet.User.
	UserPut struct {
		Put
		ID     fleet.UserID   `json:"id"`
		Tenant fleet.TenantID `json:"tenant,omitempty"`
		Spec   fleet.UserSpec `json:"spec"`
		// Activated is set for the first user of a cluster only.
		Activated bool `json:"activated,omitempty"`
	}
	// UserDelete removes a user with all tokens.
	UserDelete struct {
		ID         fleet.UserID `json:"id"`
		IfRevision uint64       `json:"if_revision,omitempty"`
	}
	// RolePut stores a new custom role. Answers fleet.CustomRole.
	RolePut struct {
		Role fleet.CustomRole `json:"role"`
	}
	// RoleDelete removes a custom role that nobody has.
	RoleDelete struct {
		Key string `json:"key"`
	}
	// TokenIssue stores a new API token with an owner, permissions or an end, and ends the one that it replaces, if any.
	// Answers fleet.Token.
	TokenIssue struct {
		Token    fleet.TokenRecord `json:"token"`
		Replaces fleet.TokenID     `json:"replaces,omitempty"`
		// IntroducedBy is kept with the owner whose own this makes the token; set only while four eyes are on.
		IntroducedBy fleet.UserID `json:"introduced_by,omitempty"`
	}
	// TokensUsed folds when tokens were last used. Unknown tokens are passed over. Not audited.
	TokensUsed struct {
		Uses []TokenUse `json:"uses"`
	}
	// TokenUse is when one token was last used.
	TokenUse struct {
		ID fleet.TokenID `json:"id"`
		At time.Time     `json:"at"`
	}
	// AccessPut writes the access policy. Answers fleet.AccessPolicy.
	AccessPut struct {
		IfRevision uint64             `json:"if_revision,omitempty"`
		Policy     fleet.AccessPolicy `json:"policy"`
	}
	// ApprovalPut stores a request that waits for a second person. Answers fleet.Approval.
	ApprovalPut struct {
		Approval fleet.Approval `json:"approval"`
	}
	// ApprovalDecide approves or denies a request that waits. Answers fleet.Approval.
	ApprovalDecide struct {
		ID      fleet.ApprovalID `json:"id"`
		Approve bool             `json:"approve"`
		By      fleet.UserID     `json:"by"`
	}
	// ApprovalFinish records how an approved request ended that no command recorded. Answers fleet.Approval.
	ApprovalFinish struct {
		ID     fleet.ApprovalID `json:"id"`
		Failed bool             `json:"failed,omitempty"`
		Detail string           `json:"detail,omitempty"`
	}
)

// Type implements Body.
func (UserPut) Type() Type { return TypeUserPut }

// Type implements Body.
func (UserDelete) Type() Type { return TypeUserDelete }

// Type implements Body.
func (RolePut) Type() Type { return TypeRolePut }

// Type implements Body.
func (RoleDelete) Type() Type { return TypeRoleDelete }

// Type implements Body.
func (TokenIssue) Type() Type { return TypeTokenIssue }

// Type implements Body.
func (TokensUsed) Type() Type { return TypeTokensUsed }

// Type implements Body.
func (AccessPut) Type() Type { return TypeAccessPut }

// Type implements Body.
func (ApprovalPut) Type() Type { return TypeApprovalPut }

// Type implements Body.
func (ApprovalDecide) Type() Type { return TypeApprovalDecide }

// Type implements Body.
func (ApprovalFinish) Type() Type { return TypeApprovalFinish }
