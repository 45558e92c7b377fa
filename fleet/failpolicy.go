package fleet

// FailAction is what becomes of a request that could not be judged.
type FailAction string

// What becomes of a request that could not be judged.
const (
	// FailOpen lets it pass; it is the default.
	FailOpen FailAction = "open"
	// FailClose refuses it where the mode would have blocked an attack.
	FailClose FailAction = "close"
)

// FailCause is why a request could not be judged, or not wholly.
type FailCause string

// The causes.
const (
	// FailEngineError: a part of the engine failed or panicked.
	FailEngineError FailCause = "engine_error"
	// FailOverLimit: the request is larger, deeper or has more values than what is inspected.
	FailOverLimit FailCause = "over_limit"
	// FailTimeout: the engine had no time for it.
	FailTimeout FailCause = "timeout"
	// FailConfigNotLoaded: the node does not have the tenant's rules.
	FailConfigNotLoaded FailCause = "config_not_loaded"
)

// FailCauses lists the causes in the order in which they are looked at.
var FailCauses = []FailCause{FailTimeout, FailEngineError, FailConfigNotLoaded, FailOverLimit}

// FailPolicy says for each cause what becomes of a host's requests that could not be judged; empty is open.
type FailPolicy struct {
	EngineError     FailAction `json:"engine_error,omitempty" yaml:"engine_error,omitempty" enum:",open,close" doc:"a part of the engine failed"`
	OverLimit       FailAction `json:"over_limit,omitempty" yaml:"over_limit,omitempty" enum:",open,close" doc:"the request is larger, deeper or has more values than what is inspected"`
	Timeout         FailAction `json:"timeout,omitempty" yaml:"timeout,omitempty" enum:",open,close" doc:"the engine had no time for it"`
	ConfigNotLoaded FailAction `json:"config_not_loaded,omitempty" yaml:"config_not_loaded,omitempty" enum:",open,close" doc:"the node does not have the tenant's rules"`
}

// On is what becomes of a request for cause.
func (p FailPolicy) On(cause FailCause) FailAction {
	if a := p.of(cause); a != nil && *a == FailClose {
		return FailClose
	}
	return FailOpen
}

// With is p with another action for one cause.
func (p FailPolicy) With(cause FailCause, a FailAction) (FailPolicy, error) {
	f := p.of(cause)
	if f == nil {
		return p, Invalid("fail_policy", "%q is not a cause: use one of %v", string(cause), FailCauses)
	}
	*f = a
	return p, p.Validate()
}

func (p *FailPolicy) of(cause FailCause) *FailAction {
	switch cause {
	case FailEngineError:
		return &p.EngineError
	case FailOverLimit:
		return &p.OverLimit
	case FailTimeout:
		return &p.Timeout
	case FailConfigNotLoaded:
		return &p.ConfigNotLoaded
	}
	return nil
}

// Validate checks p.
func (p FailPolicy) Validate() error {
	for _, cause := range FailCauses {
		if a := *p.of(cause); a != "" && a != FailOpen && a != FailClose {
			return Invalid("fail_policy."+string(cause), "%q is not a fail policy: use open or close", string(a))
		}
	}
	return nil
}
