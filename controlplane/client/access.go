package client

import (
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Bodies of people's access.
type (
	// UserCreate makes a user.
	UserCreate struct {
		ID    string           `json:"id" maxLength:"63" doc:"name within the scope: 1 to 63 of a-z, 0-9 and '-'" example:"alice"`
		Name  string           `json:"name,omitempty" doc:"for people"`
		Email string           `json:"email,omitempty" example:"alice@example.com"`
		Roles []fleet.RoleName `json:"roles" doc:"administrator, analyst, read_only, api_developer, deploy, or custom ones"`
	}
	// UserUpdate changes what is set.
	UserUpdate struct {
		Name  *string           `json:"name,omitempty"`
		Email *string           `json:"email,omitempty"`
		Roles *[]fleet.RoleName `json:"roles,omitempty"`
	}
	// UserEnded is a user whose tokens ended, and where.
	UserEnded struct {
		fleet.User
		Settled
	}
	// Settled says which members confirmed a change before the answer.
	Settled struct {
		// Confirmed members include the change; Unconfirmed ones could not be reached in time, and do not accept the token
		// any more once they hear from the leader again.
		Confirmed   []fleet.MemberID `json:"confirmed"`
		Unconfirmed []fleet.MemberID `json:"unconfirmed"`
	}
	// Settle asks a member to wait for an index.
	Settle struct {
		Index uint64 `json:"index"`
	}

	// RoleCreate makes a custom role.
	RoleCreate struct {
		Name        fleet.RoleName     `json:"name" example:"responder"`
		Comment     string             `json:"comment,omitempty" maxLength:"256" doc:"what the role is for"`
		Permissions []fleet.Permission `json:"permissions" maxItems:"64"`
	}
	// Role is a built-in or custom role.
	Role struct {
		Name        fleet.RoleName     `json:"name"`
		Builtin     bool               `json:"builtin"`
		Tenant      fleet.TenantID     `json:"tenant,omitempty"`
		Comment     string             `json:"comment,omitempty"`
		Permissions []fleet.Permission `json:"permissions"`
	}

	// TokenCreate makes an API token.
	TokenCreate struct {
		Comment     string             `json:"comment,omitempty" maxLength:"256" doc:"what the token is for"`
		User        string             `json:"user,omitempty" maxLength:"63" doc:"whose token it is, by name within the scope; default a service token of nobody"`
		Permissions []fleet.Permission `json:"permissions,omitempty" maxItems:"64" doc:"narrow the token to these"`
		TTL         string             `json:"ttl,omitempty" doc:"life of the token, such as 720h; default 2160h for a user's, without end for a service token"`
	}
	// TokenCreated shows a token's secret, once.
	TokenCreated struct {
		fleet.Token
		Secret string `json:"token,omitempty" doc:"the token; it is shown this one time"`
		Note   string `json:"note,omitempty" doc:"why there is no secret, when a repeated request is answered again"`
	}
	// TokenRotate replaces the token that is used.
	TokenRotate struct {
		TTL string `json:"ttl,omitempty" doc:"life of the new token; default as the old one's, which is also the most, unless that has no end"`
	}
	// TokenUses tells when tokens were used.
	TokenUses struct {
		Uses []TokenUse `json:"uses" maxItems:"10000"`
	}
	// TokenUse is when one token was last used.
	TokenUse struct {
		ID fleet.TokenID `json:"id"`
		At time.Time     `json:"at"`
	}

	// AccessUpdate changes what is set.
	AccessUpdate struct {
		FourEyes     *bool `json:"four_eyes,omitempty" doc:"risky acts wait for a second person"`
		MaxTokenDays *int  `json:"max_token_days,omitempty" doc:"longest life of a person's token"`
	}

	// Whoami says what a token may do.
	Whoami struct {
		Token       fleet.Token        `json:"token"`
		Party       fleet.Party        `json:"party"`
		User        *fleet.User        `json:"user,omitempty"`
		Permissions []fleet.Permission `json:"permissions" doc:"what the token may do, in its scope"`
	}
)

// Held is the answer to a request that waits for a second person: nothing was changed yet.
//
//nolint:errname // what the API calls it
type Held struct{ fleet.Approval }

// Error says who can go on.
func (h *Held) Error() string {
	return fmt.Sprintf("nothing is changed yet: this needs a second person; until %s another administrator can run 'fleetctl approval approve %s'", h.ExpiresAt.Format("2006-01-02 15:04 MST"), h.ID)
}

// Unwrap makes it a denial for now.
func (h *Held) Unwrap() error { return fleet.ErrDenied }
