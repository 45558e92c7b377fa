package rules

import (
	"bytes"
	"slices"
	"sync"

	"github.com/edgefleet/edgefleet/fleet/request"
)

// haystack is all that rules without a point look at, and the same in lower case for their needles. It is filled when it is
// first asked.
type haystack struct {
	req    *request.Request
	filled bool
	values []request.Value
	// text are the values in lower case with a zero byte behind each; ends are where they end.
	text []byte
	ends []int
}

var haystacks = sync.Pool{New: func() any { return new(haystack) }}

func newHaystack(r *request.Request) *haystack {
	h := haystacks.Get().(*haystack)
	h.req = r
	return h
}

func (h *haystack) fill() {
	if h.filled {
		return
	}
	h.filled = true
	for _, v := range h.req.All() {
		if inspected(v.Point) {
			h.values = append(h.values, v)
			h.text = appendLower(h.text, v.Value)
			h.ends = append(h.ends, len(h.text))
			h.text = append(h.text, 0)
		}
	}
}

// has says that a value with one of needles may be in the request; without needles, any may be.
func (h *haystack) has(needles [][]byte) bool {
	h.fill()
	return len(needles) == 0 || slices.ContainsFunc(needles, func(n []byte) bool { return bytes.Contains(h.text, n) })
}

// valueHas says it of one value.
func (h *haystack) valueHas(i int, needles [][]byte) bool {
	start := 0
	if i > 0 {
		start = h.ends[i-1] + 1
	}
	return len(needles) == 0 || slices.ContainsFunc(needles, func(n []byte) bool { return bytes.Contains(h.text[start:h.ends[i]], n) })
}

// maxPooled bounds the buffers that are kept for the next request.
const maxPooled = 1 << 20

// free keeps the buffers for the next request, which sees nothing of this one.
func (h *haystack) free() {
	clear(h.text)
	clear(h.values)
	*h = haystack{values: h.values[:0], text: h.text[:0], ends: h.ends[:0]}
	if cap(h.text) <= maxPooled {
		haystacks.Put(h)
	}
}
