package command

import "github.com/edgefleet/edgefleet/fleet"

type (
	// OrderProgress stores how far an order is with the CA, before the next thing is asked of it. Answers fleet.Order.
	OrderProgress struct {
		ID    fleet.OrderID `json:"id"`
		Asked bool          `json:"asked,omitempty"`
		URL   string        `json:"url,omitempty"`
		// Authority is the directory of the CA. With it, and no URL, an order is counted.
		Authority string `json:"authority,omitempty"`
	}
	// RenewalPlan stores when a certificate is to be renewed.
	RenewalPlan struct {
		Host       fleet.HostName `json:"host"`
		Generation uint64         `json:"generation"`
		Renewal    fleet.Renewal  `json:"renewal"`
	}
)

// Type implements Body.
func (OrderProgress) Type() Type { return TypeOrderProgress }

// Type implements Body.
func (RenewalPlan) Type() Type { return TypeRenewalPlan }
