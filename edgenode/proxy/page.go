package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// statusClientGone is recorded, never sent: the client ended the request before it was answered.
const statusClientGone = 499

// pages are the messages of the edge's own answers. They tell nothing about origins, rules or the edge itself.
var pages = map[int]string{
	http.StatusBadRequest:            "The request is malformed.",
	http.StatusForbidden:             "The request was blocked.",
	http.StatusMethodNotAllowed:      "The method is not allowed.",
	http.StatusRequestTimeout:        "The request took too long to arrive.",
	http.StatusRequestEntityTooLarge: "The request is too large.",
	http.StatusMisdirectedRequest:    "This server does not answer for the requested host on this connection.",
	http.StatusInternalServerError:   "The request could not be processed.",
	http.StatusBadGateway:            "The server behind this site cannot be reached.",
	http.StatusServiceUnavailable:    "Too many requests are in progress. Try again shortly.",
	http.StatusGatewayTimeout:        "The server behind this site did not answer in time.",
	http.StatusLoopDetected:          "The request came back to the server that forwarded it.",
}

// writePage sends the edge's own answer with the given status; what may be in the headers so far is removed.
func writePage(w http.ResponseWriter, r *http.Request, status int, id string) {
	contentType, content := page(status, id, r.Header.Get("Accept"))
	h := w.Header()
	clear(h)
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(content)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Request-Id", id)
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(content)) // a client that is gone needs no page
}

// page is JSON for clients that ask for it, HTML for a person who was blocked, and text otherwise.
func page(status int, id, accept string) (contentType, content string) {
	message, title := pages[status], http.StatusText(status)
	switch {
	case strings.Contains(accept, "json") && !strings.Contains(accept, "text/html"):
		b, err := json.Marshal(struct {
			Status    int    `json:"status"`
			Message   string `json:"message"`
			RequestID string `json:"request_id"`
		}{status, message, id})
		if err != nil {
			panic(err) // two strings and a number always have a JSON form
		}
		return "application/json", string(b) + "\n"
	case status == http.StatusForbidden:
		return "text/html; charset=utf-8", fmt.Sprintf("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>%d %s</title></head>\n"+
			"<body><h1>%s</h1><p>Request ID: <code>%s</code></p></body></html>\n", status, title, message, id)
	}
	return "text/plain; charset=utf-8", fmt.Sprintf("%d %s\n%s\nRequest ID: %s\n", status, title, message, id)
}
