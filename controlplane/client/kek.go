package client

import "github.com/edgefleet/edgefleet/fleet"

type (
	// KEKStatus says how far the rotation of the key-encryption key is.
	KEKStatus struct {
		Seals   string      `json:"seals" doc:"name of the key that seals"`
		Waiting int         `json:"waiting" doc:"secrets that wait to be sealed anew by it"`
		Needed  []string    `json:"needed" doc:"names of the keys that seal those: keep them until none waits"`
		Members []KEKMember `json:"members"`
	}
	// KEKMember says which keys a member has loaded.
	KEKMember struct {
		Member fleet.MemberID `json:"member"`
		Keys   []string       `json:"keys,omitempty" doc:"names, the newest last"`
		Silent bool           `json:"silent,omitempty" doc:"it does not answer"`
		Detail string         `json:"detail,omitempty" doc:"what is wrong with it: it does not answer, or lacks a key"`
	}
)
