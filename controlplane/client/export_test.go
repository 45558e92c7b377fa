package client

import "io"

// ReadEvents is the decoder behind Stream.
func ReadEvents(r io.Reader, fn func(data []byte) error) error {
	return readEvents(r, dataOf(fn))
}
