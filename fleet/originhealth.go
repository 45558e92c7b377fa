package fleet

import "time"

const (
	// MaxOriginsOut bounds Report.OriginsOut, maxOutReason the reason in one of them, in bytes.
	MaxOriginsOut = 128
	maxOutReason  = 64
)

// OriginOut is one server of a host that a node passes over, while it has another.
type OriginOut struct {
	Host HostName `json:"host"`
	// Server is host:port as the node dials it.
	Server string `json:"server"`
	// Reason is that of edgefleet_proxy_origin_errors_total, or "health check: " and why.
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// validateOriginsOut checks what a node says of origins: it is kept in memory, and shown.
func (r Report) validateOriginsOut() error {
	if n := len(r.OriginsOut); n > MaxOriginsOut {
		return NewError(ErrTooLarge, "origins_out", "%d origins are reported; the limit is %d", n, MaxOriginsOut)
	}
	for _, o := range r.OriginsOut {
		if len(o.Host) > 253 || len(o.Server) > 300 || len(o.Reason) > maxOutReason {
			return NewError(ErrTooLarge, "origins_out", "an origin out of %d bytes", len(o.Host)+len(o.Server)+len(o.Reason))
		}
	}
	return nil
}

// CutReason is a reason of at most as many bytes as a report takes.
func CutReason(s string) string { return s[:min(len(s), maxOutReason)] }
