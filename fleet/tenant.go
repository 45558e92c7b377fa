package fleet

import (
	"net/netip"
	"slices"
	"time"
)

// Tenant is a customer.
type Tenant struct {
	ID   TenantID   `json:"id"`
	Spec TenantSpec `json:"spec"`
	Meta
}

// TenantSpec is what people decide about a tenant.
type TenantSpec struct {
	// Name is for people.
	Name string `json:"name"`
	// Form decides who may act for this tenant.
	Form Form `json:"form"`
	// Group is the node group that serves the tenant's hosts.
	Group GroupName `json:"group"`
	// AllowedOrigins are address ranges that an operator opened for this tenant although they are private;
	// metadata addresses stay refused.
	AllowedOrigins []netip.Prefix `json:"allowed_origins,omitempty"`
}

// Validate checks the invariants of t.
func (t Tenant) Validate() error {
	if err := ValidateID("tenant", t.ID); err != nil {
		return err
	}
	if len(t.Spec.Name) > 128 {
		return Invalid("name", "tenant name is %d bytes long; the limit is 128", len(t.Spec.Name))
	}
	if err := t.Spec.Form.Validate(); err != nil {
		return err
	}
	if len(t.Spec.AllowedOrigins) > 64 {
		return Invalid("allowed_origins", "%d address ranges; the limit is 64", len(t.Spec.AllowedOrigins))
	}
	if i := slices.IndexFunc(t.Spec.AllowedOrigins, func(p netip.Prefix) bool { return !p.IsValid() }); i >= 0 {
		return Invalid("allowed_origins", "entry %d is not an address range such as 10.0.0.0/8", i+1)
	}
	return ValidateID("group", t.Spec.Group)
}

// Group is a node group: nodes that share desired state.
type Group struct {
	Name GroupName `json:"name"`
	Spec GroupSpec `json:"spec"`
	Meta
}

// GroupSpec is what people decide about a node group.
type GroupSpec struct {
	// Form says who owns the group's nodes; rollouts of the vendor never touch client-owned nodes.
	Form Form `json:"form"`
}

// Validate checks the invariants of g.
func (g Group) Validate() error {
	if err := ValidateID("group", g.Name); err != nil {
		return err
	}
	return g.Spec.Form.Validate()
}

// Role is what an API token may do.
type Role string

// The roles; finer ones build on these two scopes.
const (
	// RoleOperator acts for the vendor on everything.
	RoleOperator Role = "operator"
	// RoleTenant acts for one client on that client's objects only.
	RoleTenant Role = "tenant"
)

// Token is an API token; its secret is shown once and only its hash is stored.
type Token struct {
	ID     TokenID  `json:"id"`
	Role   Role     `json:"role"`
	Tenant TenantID `json:"tenant,omitempty"`
	// Comment says what the token is for.
	Comment string `json:"comment,omitempty"`
	// Owner is the person that the token belongs to: it ends with them, and never allows more than they may. Empty is a
	// service token.
	Owner UserID `json:"owner,omitempty"`
	// Permissions narrow what the token may do; empty is all that its owner may, or of a service token all in its scope.
	Permissions []Permission `json:"permissions,omitempty"`
	// ExpiresAt ends the token; zero never does.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// LastUsedAt is when the token was last used, to a few minutes; zero before.
	LastUsedAt time.Time `json:"last_used_at,omitzero"`
	// MadeBy is the person who knew the token first.
	MadeBy UserID `json:"made_by,omitempty"`
	Meta
}

// Validate checks the invariants of t.
func (t Token) Validate() error {
	if err := ValidateID("token", t.ID); err != nil {
		return err
	}
	if len(t.Comment) > MaxCommentLength {
		return NewError(ErrTooLarge, "comment", "the comment has %d bytes; the limit is %d", len(t.Comment), MaxCommentLength)
	}
	switch t.Role {
	case RoleOperator:
		if t.Tenant != "" {
			return Invalid("tenant", "an operator token belongs to no tenant")
		}
	case RoleTenant:
		if err := ValidateID("tenant", t.Tenant); err != nil {
			return err
		}
	default:
		return Invalid("role", "%q is not a role: use operator or tenant", string(t.Role))
	}
	return t.validateAccess()
}

// Party is the side of the shared-responsibility table that a token acts for.
func (t Token) Party() Party {
	if t.Role == RoleOperator {
		return Vendor
	}
	return Client
}
