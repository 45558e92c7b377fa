package fleet

import "slices"

// Form is a deployment form: it decides who owns which duty.
type Form string

// The three deployment forms.
const (
	// SecurityEdge: the vendor runs nodes and control plane.
	SecurityEdge Form = "security_edge"
	// Hybrid: the client runs the nodes, the vendor the control plane.
	Hybrid Form = "hybrid"
	// OnPremise: the client runs both.
	OnPremise Form = "on_premise"
)

// Forms lists every deployment form.
var Forms = []Form{SecurityEdge, Hybrid, OnPremise}

// Validate reports whether f is one of Forms.
func (f Form) Validate() error {
	if !slices.Contains(Forms, f) {
		return Invalid("form", "%q is not a deployment form: use security_edge, hybrid or on_premise", string(f))
	}
	return nil
}

// Party is who acts, or who owns a duty.
type Party string

// The parties of the shared-responsibility model.
const (
	// Vendor runs the service.
	Vendor Party = "vendor"
	// Client is the vendor's customer.
	Client Party = "client"
	// Nobody: the duty is not part of that form.
	Nobody Party = "nobody"
	// Either: the duty is the software's own, so either party may use the operation.
	Either Party = "either"
)

// DutyID names a row of the shared-responsibility table.
type DutyID string

// The duties that Edgefleet carries, enforces or proves.
const (
	DutyForms         DutyID = "D1"
	DutyCloud         DutyID = "D2"
	DutyNodeCode      DutyID = "D3"
	DutyPatching      DutyID = "D4"
	DutyOperating     DutyID = "D5"
	DutyVulnerability DutyID = "D6"
	DutyLogging       DutyID = "D7"
	DutyIncidents     DutyID = "D8"
	DutyMonitoring    DutyID = "D9"
	DutyFirewall      DutyID = "D10"
	DutyNodeUpdate    DutyID = "D11"
	DutyAttestation   DutyID = "D12"
	DutyContinuity    DutyID = "D13"
	DutyLeavers       DutyID = "D14"
	DutyMasking       DutyID = "D15"
	DutyPersonnel     DutyID = "D16"
	DutyAccess        DutyID = "D17"
	DutyTransactions  DutyID = "D18"
	DutyClientUpdates DutyID = "D19"
	DutyEnvironment   DutyID = "D20"
	DutyDataMinimum   DutyID = "D21"
	DutyLocalVerdict  DutyID = "D22"
	DutyRules         DutyID = "D23"
	DutyConsole       DutyID = "D24"
	DutyDataManifest  DutyID = "D25"
)

// Duty is one row: who owns it in each form.
type Duty struct {
	ID    DutyID         `json:"id"`
	Title string         `json:"title"`
	Owner map[Form]Party `json:"owner"`
}

func owners(edge, hybrid, onPremise Party) map[Form]Party {
	return map[Form]Party{SecurityEdge: edge, Hybrid: hybrid, OnPremise: onPremise}
}

// Duties is the shared-responsibility table, in order.
var Duties = []Duty{
	{DutyForms, "deployment forms differ in who may act", owners(Either, Either, Either)},
	{DutyCloud, "security and availability of the control plane", owners(Vendor, Vendor, Client)},
	{DutyNodeCode, "security of node code and internal systems", owners(Vendor, Vendor, Vendor)},
	{DutyPatching, "server-level patching of node hosts", owners(Vendor, Client, Client)},
	{DutyOperating, "operating the services", owners(Vendor, Vendor, Client)},
	{DutyVulnerability, "vulnerability testing", owners(Vendor, Vendor, Client)},
	{DutyLogging, "security event logging and monitoring", owners(Vendor, Vendor, Client)},
	{DutyIncidents, "incident management", owners(Vendor, Vendor, Client)},
	{DutyMonitoring, "operational monitoring", owners(Vendor, Vendor, Client)},
	{DutyFirewall, "server and perimeter firewall of node hosts", owners(Vendor, Client, Client)},
	{DutyNodeUpdate, "applying node updates", owners(Vendor, Client, Client)},
	{DutyAttestation, "attestation report on request", owners(Vendor, Vendor, Nobody)},
	{DutyContinuity, "business continuity and disaster recovery plan", owners(Vendor, Client, Client)},
	{DutyLeavers, "removing terminated users", owners(Client, Client, Client)},
	{DutyMasking, "masking rules", owners(Client, Client, Client)},
	{DutyPersonnel, "notifying of personnel changes", owners(Client, Client, Nobody)},
	{DutyAccess, "internal access controls", owners(Vendor, Client, Client)},
	{DutyTransactions, "transactions authorised, secure, timely, complete", owners(Nobody, Client, Client)},
	{DutyClientUpdates, "client updates in a timely manner", owners(Vendor, Client, Client)},
	{DutyEnvironment, "security of one's own environment", owners(Vendor, Client, Client)},
	{DutyDataMinimum, "only data about malicious requests may be sensitive", owners(Either, Either, Either)},
	{DutyLocalVerdict, "traffic is not mirrored, the verdict is local", owners(Either, Either, Either)},
	{DutyRules, "application-specific rules", owners(Either, Either, Either)},
	{DutyConsole, "console and public API", owners(Either, Either, Either)},
	{DutyDataManifest, "the client knows what data is sent", owners(Either, Either, Either)},
}

// DutyByID returns the row with the given id.
func DutyByID(id DutyID) (Duty, bool) {
	i := slices.IndexFunc(Duties, func(d Duty) bool { return d.ID == id })
	if i < 0 {
		return Duty{}, false
	}
	return Duties[i], true
}

// Authorize refuses party for an operation that exercises the duty in the given form, and says who owns it.
func Authorize(id DutyID, form Form, party Party) error {
	d, ok := DutyByID(id)
	if !ok {
		return NewError(ErrDenied, "duty", "operation names no known duty %q", string(id))
	}
	if party != Vendor && party != Client {
		return NewError(ErrDenied, "duty", "%q is not a party that can act: use vendor or client", string(party))
	}
	owner, ok := d.Owner[form]
	if !ok {
		return form.Validate()
	}
	switch owner {
	case Either, party:
		return nil
	case Nobody:
		return NewError(ErrDenied, "duty", "%s (%s) is not provided in the form %s", d.Title, d.ID, form)
	case Vendor, Client:
		return NewError(ErrDenied, "duty", "%s (%s) belongs to the %s in the form %s: ask them", d.Title, d.ID, owner, form)
	}
	return NewError(ErrDenied, "duty", "%s has no owner in the form %s", d.ID, form)
}
