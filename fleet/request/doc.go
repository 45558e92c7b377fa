// Package request parses an HTTP request once into points: the parser chains at which rules look, by which masks hide
// values, and by which limits are counted.
//
// It owns the meaning of points and of rule conditions' attributes, and the bounds of parsing. It judges nothing, does
// no I/O, has no clock, and never fails: what is over a limit or cannot be parsed is kept out and recorded as a Problem,
// so that callers can apply their declared policy (a mask hides the whole of what could not be parsed).
//
// # Formats
//
// Parse reads these by itself, and what they hold again, within the limits:
//
//   - the body, as its Content-Type says: form_urlencoded, multipart, json_doc, xml, gql (application/graphql). Without a
//     type, or with another one: what is a form, well-formed JSON, or begins as only XML does;
//   - gzip, where Content-Encoding says so (points need not name it then), and in values that begin as only gzip does;
//   - cookie, in that header;
//   - json_doc in values that are well-formed objects or lists, xml in values that begin as only XML does;
//   - gql in a parameter that is called query and looks like it;
//   - jwt in values that are three parts of base64url of which the first begins as a JSON object, in headers also behind
//     a scheme such as Bearer. Its parts are jwt_header, jwt_payload and jwt_signature;
//   - base64, of either alphabet, in values of eight characters and more that decode to text without control characters,
//     or to gzip;
//   - percent in values that are still percent-encoded after their own decoding.
//
// In the path nothing but the path itself is read. A point that names a parser makes it run on demand, also on values
// that do not seem to have its format: [["get","q"],["base64"]] gives bytes, too.
//
// # Containers
//
// Names of JSON, XML and GraphQL are hash, places of lists are array. In XML the names are those of elements without
// their prefix, of attributes with an @ before, and #comment and #doctype. In GraphQL they are those of fields and
// arguments, of directives with an @ before, of variables' defaults with a $.
// Parameters, headers, cookies and elements that occur more than once are numbered by array, and a point without the
// number means each of them. pollution is all of them, joined by commas, except for elements.
//
// # A new format
//
// It is a constant in parsers.go with its two cases there, and an element in point.go.
package request
