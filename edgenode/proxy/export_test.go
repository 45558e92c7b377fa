package proxy

// CanonicalHost is the parser of names that clients send.
var CanonicalHost = canonicalHost

// Frames is the follower of WebSocket frames.
type Frames struct{ frames }

// Advance takes the next bytes of the stream.
func (f *Frames) Advance(b []byte) { f.advance(b) }

// Between reports whether the stream is between two frames.
func (f *Frames) Between() bool { return f.between() }
