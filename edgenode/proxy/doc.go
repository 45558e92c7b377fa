// Package proxy is the request path of an edge node: it ends TLS, has each request judged, forwards it to an origin
// of the protected host and streams the answer back.
//
// It owns the two public listeners while Run lasts, the limits on what a client may send, the connections to origins,
// and what a client sees when a request is refused. It decides nothing about rules (package waf does), stores no events
// (its Sink does), and makes no call over the network but to DNS and to origins: with the control plane away it serves
// the snapshot that it is given. An origin that is away is a 502 or 504 for that request, after the host's other origins
// were tried; its neighbours do not notice.
//
// In the modes that analyse, the first Limits.InspectBytes of a body are read before the origin is contacted, so a
// client that waits for an answer before it has sent them (bidirectional streaming) is answered 408; such hosts need
// mode off. WebSockets are judged by their handshake.
//
// Nothing of a request (addresses, paths, queries, headers, bodies) is written to a log.
package proxy
