package fleet

import (
	"net/mail"
	"slices"
	"strings"
	"time"
)

// UserID names a person: "alice" is one of the vendor's, "alice@acme" one of the tenant acme's. It stands in the audit
// log, so it is never changed.
type UserID string

// NewUserID is the id of the person with that name in a scope.
func NewUserID(name string, tenant TenantID) UserID {
	if tenant == "" {
		return UserID(name)
	}
	return UserID(name + "@" + string(tenant))
}

// Split returns the name and the tenant, empty for the vendor's.
func (u UserID) Split() (name string, tenant TenantID) {
	name, t, _ := strings.Cut(string(u), "@")
	return name, TenantID(t)
}

// OwnerUser is the person that the first operator token belongs to.
const OwnerUser UserID = "owner"

// Limits on people, roles and tokens, each of one scope.
const (
	MaxUsersPerScope = 5_000
	MaxRolesPerScope = 100
	MaxRolesPerUser  = 16
	MaxTokensPerUser = 100
	// MaxServiceTokens bounds the tokens that belong to nobody.
	MaxServiceTokens = 5_000
)

// User is a person who may call the API with tokens of their own.
type User struct {
	ID UserID `json:"id"`
	// Tenant is the scope of the roles; empty is the vendor's.
	Tenant TenantID `json:"tenant,omitempty"`
	Spec   UserSpec `json:"spec"`
	// Activated: the person has had a token that nobody else knew. A token that somebody else made for them until then
	// becomes their own by being rotated; later ones never do, so that nobody can act as another.
	Activated bool `json:"activated,omitempty"`
	// IntroducedBy is who made that first token, if four eyes were on: the two count as one person where two are needed.
	IntroducedBy UserID `json:"introduced_by,omitempty"`
	// LastSeenAt is when a token of theirs was last used, to a few minutes; zero before.
	LastSeenAt time.Time `json:"last_seen_at,omitzero"`
	Meta
}

// UserSpec is what administrators decide about a person.
type UserSpec struct {
	// Name and Email are for people.
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
	// Roles give permissions in the user's scope.
	Roles []RoleName `json:"roles"`
	// Disabled ends all tokens for as long as it is set.
	Disabled bool `json:"disabled,omitempty"`
}

// Validate checks the invariants of u; whether its roles exist is for the state to say.
func (u User) Validate() error {
	name, tenant := u.ID.Split()
	if err := ValidateID("user", name); err != nil {
		return err
	}
	if tenant != u.Tenant || u.ID != NewUserID(name, tenant) {
		return Invalid("user", "user %q is not of tenant %q", string(u.ID), string(u.Tenant))
	}
	if len(u.Spec.Name) > 128 || strings.ContainsFunc(u.Spec.Name, func(r rune) bool { return r < ' ' }) {
		return Invalid("name", "the name has %d bytes; use at most 128, on one line", len(u.Spec.Name))
	}
	if u.Spec.Email != "" {
		if a, err := mail.ParseAddress(u.Spec.Email); err != nil || a.Address != u.Spec.Email || len(u.Spec.Email) > 254 {
			return Invalid("email", "%.64q is not an e-mail address such as alice@example.com", u.Spec.Email)
		}
	}
	if len(u.Spec.Roles) > MaxRolesPerUser {
		return NewError(ErrTooLarge, "roles", "%d roles; the limit is %d", len(u.Spec.Roles), MaxRolesPerUser)
	}
	for i, r := range u.Spec.Roles {
		if slices.Contains(u.Spec.Roles[:i], r) {
			return Invalid("roles", "the role %q is there twice", string(r))
		}
	}
	return nil
}

// Idle reports whether nobody used the user's tokens since the given time.
func (u User) Idle(since time.Time) bool { return later(u.LastSeenAt, u.CreatedAt).Before(since) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// CustomRole is a named set of permissions in one scope.
type CustomRole struct {
	// Key is the name and the scope.
	Key    string   `json:"key"`
	Name   RoleName `json:"name"`
	Tenant TenantID `json:"tenant,omitempty"`
	// Comment says what the role is for.
	Comment     string       `json:"comment,omitempty"`
	Permissions []Permission `json:"permissions"`
	Meta
}

// RoleKey is the key of a custom role.
func RoleKey(name RoleName, tenant TenantID) string { return string(NewUserID(string(name), tenant)) }

// Validate checks the invariants of r.
func (r CustomRole) Validate() error {
	if err := ValidateID("name", r.Name); err != nil {
		return err
	}
	if _, taken := BuiltinPermissions(r.Name); taken {
		return NewError(ErrConflict, "name", "%s is a built-in role: choose another name", r.Name)
	}
	if r.Key != RoleKey(r.Name, r.Tenant) {
		return Invalid("key", "the role's key is %q, not %q", RoleKey(r.Name, r.Tenant), r.Key)
	}
	if len(r.Comment) > MaxCommentLength {
		return NewError(ErrTooLarge, "comment", "the comment has %d bytes; the limit is %d", len(r.Comment), MaxCommentLength)
	}
	if len(r.Permissions) == 0 {
		return Invalid("permissions", "a role without permissions allows nothing: name at least one")
	}
	return validatePermissions(r.Permissions, r.Tenant)
}

// validatePermissions holds a sorted list without duplicates against a scope.
func validatePermissions(ps []Permission, tenant TenantID) error {
	for i, p := range ps {
		if err := p.Validate(); err != nil {
			return err
		}
		if i > 0 && ps[i-1] >= p {
			return Invalid("permissions", "the permissions are not sorted, or one is there twice")
		}
		if tenant != "" && slices.Contains(vendorOnly, p) {
			return Invalid("permissions", "%q means nothing within one tenant", string(p))
		}
	}
	return nil
}

// AccessPolicy is what holds for everybody's access.
type AccessPolicy struct {
	// ID is always "access".
	ID string `json:"id"`
	// FourEyes makes risky acts wait for a second person.
	FourEyes bool `json:"four_eyes"`
	// MaxTokenDays is the longest life of a person's token, in days.
	MaxTokenDays int `json:"max_token_days"`
	Meta
}

// AccessID is the id of the one AccessPolicy.
const AccessID = "access"

// DefaultTokenLife is the life of a person's token that does not say.
const DefaultTokenLife = 90 * 24 * time.Hour

// DefaultAccess holds until somebody decides otherwise.
func DefaultAccess() AccessPolicy { return AccessPolicy{ID: AccessID, MaxTokenDays: 365} }

// Validate checks the invariants of p.
func (p AccessPolicy) Validate() error {
	if p.ID != AccessID {
		return Invalid("id", "there is one access policy, %q", AccessID)
	}
	if p.MaxTokenDays < 1 || p.MaxTokenDays > 3650 {
		return Invalid("max_token_days", "%d is not a number of days from 1 to 3650", p.MaxTokenDays)
	}
	return nil
}

// MaxTokenLife is MaxTokenDays as a duration.
func (p AccessPolicy) MaxTokenLife() time.Duration {
	return time.Duration(p.MaxTokenDays) * 24 * time.Hour
}

// Powerful reports whether the permissions let their holder decide on others' access or on the cluster's members; only
// in the vendor's scope does anything.
func Powerful(s PermissionSet) bool {
	return s[PermUsersWrite] || s[PermApprovalsDecide] || s[PermClusterOperate] || s[PermTokensWrite]
}
