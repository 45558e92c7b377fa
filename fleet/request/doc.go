// Package request parses an HTTP request once into points: the parser chains at which rules look, by which masks hide
// values, and by which limits are counted.
//
// It owns the meaning of points and of rule conditions' attributes, and the bounds of parsing. It judges nothing, does
// no I/O, has no clock, and never fails: what is over a limit or cannot be parsed is kept out and recorded as a Problem,
// so that callers can apply their declared policy (a mask hides the whole of what could not be parsed).
//
// A parser of a new format (base64, jwt, xml, gzip, gql) is one entry of the table in parsers.go.
package request
