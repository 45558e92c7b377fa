package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// uploading extends the limits of a server by what arrives or leaves: a large body takes as long as it takes, a stalled
// one does not.
type uploading struct {
	io.ReadCloser
	rc      *http.ResponseController
	timeout time.Duration
}

// uploaded is r's body for a handler that reads it itself.
func (a *API) uploaded(w http.ResponseWriter, r *http.Request, limit int64) io.ReadCloser {
	return &uploading{http.MaxBytesReader(w, r.Body, limit), http.NewResponseController(w), a.bodyTimeout}
}

// Read implements io.Reader.
func (u *uploading) Read(p []byte) (int, error) {
	// Deadlines are supported by servers; recorders in tests have no slow bodies.
	now := time.Now()
	_ = u.rc.SetReadDeadline(now.Add(u.timeout))
	_ = u.rc.SetWriteDeadline(now.Add(writeTimeout))
	n, err := u.ReadCloser.Read(p)
	if err != nil {
		_ = u.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// downloading extends the limit of a server's answer by what the client takes, until ctx ends, as it does with the token.
type downloading struct {
	ctx context.Context //nolint:containedctx // of the one request that it answers
	w   io.Writer
	rc  *http.ResponseController
}

// Write implements io.Writer.
func (d downloading) Write(p []byte) (int, error) {
	if d.ctx.Err() != nil {
		return 0, context.Cause(d.ctx)
	}
	_ = d.rc.SetWriteDeadline(time.Now().Add(writeTimeout / 4))
	return d.w.Write(p)
}

// contentDigest reads the SHA-256 of a Content-Digest header (RFC 9530).
func contentDigest(header string) ([]byte, error) {
	for part := range strings.SplitSeq(header, ",") {
		value, ok := strings.CutPrefix(strings.TrimSpace(part), "sha-256=:")
		if value, end := strings.CutSuffix(value, ":"); ok && end {
			if b, err := base64.StdEncoding.DecodeString(value); err == nil && len(b) == sha256.Size {
				return b, nil
			}
		}
	}
	return nil, fleet.Invalid("Content-Digest", "an upload needs the header 'Content-Digest: sha-256=:<base64>:' (RFC 9530)")
}

// spool writes a body to a file of its own and holds it against its digest; the caller removes the file.
func (a *API) spool(body io.Reader, want []byte) (f *os.File, err error) {
	if f, err = os.CreateTemp(a.o.Scratch, "upload-*"); err != nil {
		return nil, fleet.NewError(fleet.ErrUnavailable, "", "this member has no room for the upload: %v", err)
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		err = fleet.NewError(fleet.ErrTooLarge, "body", "the upload has more than %d bytes", large.Limit)
	case err != nil:
		err = fleet.NewError(fleet.ErrUnavailable, "body", "the upload broke off: nothing was changed (%v)", err)
	case subtle.ConstantTimeCompare(sum.Sum(nil), want) != 1:
		err = fleet.Invalid("body", "what arrived has another digest than the Content-Digest header says: nothing was changed; send it again")
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		discard(f)
		return nil, err
	}
	return f, nil
}

func discard(f *os.File) {
	_ = f.Close()
	_ = os.Remove(f.Name()) // the directory is swept by nobody, but it is a temporary one
}
