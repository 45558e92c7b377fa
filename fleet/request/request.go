package request

import (
	"net/http"
	"net/netip"

	"github.com/edgefleet/edgefleet/fleet"
)

// Input is a request as the edge received it. Parse only reads it.
type Input struct {
	Method, Scheme, Proto, Host string
	// URI is the raw request target.
	URI    string
	Header http.Header
	// Body is the inspected prefix of the body.
	Body []byte
	// Truncated says that the body is longer than the inspected prefix.
	Truncated bool
	ClientIP  netip.Addr
	// Instance names the application instance that the host belongs to; it may be empty.
	Instance string
}

// Value is what a request carries at one point.
type Value struct {
	// Point is the parser chain that leads to the value, such as [["post"],["json_doc"],["hash","password"]].
	Point fleet.Point
	// Name is the parameter's or header's name, empty if the point has none.
	Name string
	// Raw is the value as it was sent, Value what it means after decoding.
	Raw, Value string
}

// Problem is a part of a request that was not parsed.
type Problem struct {
	// Point is the parent whose content is not, or not wholly, among the values.
	Point  fleet.Point
	Reason Reason
}

// Reason is why a part of a request was not parsed.
type Reason string

// The reasons of problems.
const (
	// ReasonTruncated: the body is longer than the inspected prefix.
	ReasonTruncated Reason = "truncated"
	// ReasonUnparsable: the content does not have the format that it claims to have.
	ReasonUnparsable Reason = "unparsable"
	// ReasonNoParser: there is no parser for the body's content type or encoding.
	ReasonNoParser Reason = "no_parser"
	// ReasonTooManyValues: over Limits.Values, or too many bytes in values inside values.
	ReasonTooManyValues Reason = "too_many_values"
	// ReasonTooDeep: over Limits.Depth.
	ReasonTooDeep Reason = "too_deep"
	// ReasonTooLong: over Limits.ValueBytes.
	ReasonTooLong Reason = "too_long"
	// ReasonInflated: what is compressed is larger than Limits.Inflated, or a hundred times what was sent. Its beginning
	// is among the values.
	ReasonInflated Reason = "inflated_too_long"
	// ReasonEntities: a document declares XML entities, which are never expanded.
	ReasonEntities Reason = "xml_entities"
	// ReasonAmbiguousPath: nobody can say what an origin makes of the path (Location.Ambiguous).
	ReasonAmbiguousPath Reason = "ambiguous_path"
)

// Reasons lists the reasons of problems.
var Reasons = []Reason{
	ReasonTruncated, ReasonUnparsable, ReasonNoParser, ReasonTooManyValues, ReasonTooDeep, ReasonTooLong, ReasonInflated, ReasonEntities,
	ReasonAmbiguousPath,
}

// Limits bounds parsing; zero fields take the defaults of DefaultLimits.
type Limits struct {
	// Depth bounds the length of a point.
	Depth int
	// Values bounds the number of values of one request.
	Values int
	// ValueBytes bounds one parsed value; it does not bound the raw body.
	ValueBytes int
	// Inflated bounds what all compressed parts of one request inflate to, in bytes.
	Inflated int
}

// Request is a parsed request. It is immutable and safe for concurrent use.
type Request struct {
	in       Input
	lim      Limits
	values   []Value
	problems []Problem
	// plain holds the point of each value without the array elements that number duplicates.
	plain []fleet.Point
	// parsed holds the formats in which each value was parsed, as bits.
	parsed   []uint16
	location Location
	query    string
}

// Input returns what was parsed.
func (r *Request) Input() Input { return r.in }

// All returns every value in the order of the request: the line, the headers, the body. The caller must not change it.
func (r *Request) All() []Value { return r.values }

// Problems returns the parts that were not parsed, in the order they were met.
func (r *Request) Problems() []Problem { return r.problems }
