package proxy

// CanonicalHost is the parser of names that clients send.
var CanonicalHost = canonicalHost
