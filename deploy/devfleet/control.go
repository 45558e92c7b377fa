package devfleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// controlLimit bounds a message on the control socket.
const controlLimit = 1 << 20

// DNSChange sets the records of one name and type; no values removes them.
type DNSChange struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	Values []string `json:"values"`
}

// socketPath names the control socket through an open descriptor of its directory, because the path of a unix
// socket may have 107 bytes only.
func socketPath(dir *os.File) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketFile) }

// serveControl answers on the control socket until ctx ends. Only the user who started the fleet can connect: the
// directory has mode 0700, the socket 0600.
func (f *Fleet) serveControl(ctx context.Context) error {
	dir, err := os.Open(f.dir.path)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	defer func() { _ = dir.Close() }()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", socketPath(dir))
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(f.dir.join(socketFile), 0o600); err != nil {
		return errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	return serveHTTP(ctx, l, f.controlHandler())
}

func (f *Fleet) controlHandler() http.Handler {
	verbs := map[string]func(context.Context, string) error{
		"start": f.start,
		"kill":  f.kill,
		"pause": func(_ context.Context, name string) error {
			p, err := f.process(name)
			if err != nil {
				return err
			}
			return p.pause()
		},
		"resume": func(_ context.Context, name string) error {
			p, err := f.process(name)
			if err != nil {
				return err
			}
			return p.resume()
		},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /processes/{name}/{verb}", func(w http.ResponseWriter, r *http.Request) {
		do, ok := verbs[r.PathValue("verb")]
		if !ok {
			answer(w, nil, fleet.NewError(fleet.ErrNotFound, "verb", "there is no operation %q", r.PathValue("verb")))
			return
		}
		answer(w, struct{}{}, do(r.Context(), r.PathValue("name")))
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		all := make([]ProcessStatus, 0, len(f.processes))
		for _, p := range f.processes {
			all = append(all, p.status())
		}
		answer(w, all, nil)
	})
	mux.HandleFunc("GET /dns", func(w http.ResponseWriter, _ *http.Request) { answer(w, f.dns.list(), nil) })
	mux.HandleFunc("PUT /dns", func(w http.ResponseWriter, r *http.Request) {
		var c DNSChange
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, controlLimit))
		if err == nil {
			err = fleet.DecodeStrict(b, &c)
		}
		if err == nil {
			err = f.dns.set(c.Name, c.Type, c.Values)
		}
		answer(w, struct{}{}, err)
	})
	return mux
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		writeJSON(w, fleet.KindOf(err).Status, fleet.AsError(err))
		return
	}
	writeJSON(w, http.StatusOK, v)
}

// Control talks to the fleet that runs in a directory.
type Control struct{ Dir string }

// Do starts, kills, pauses or resumes a process.
func (c Control) Do(ctx context.Context, verb, name string) error {
	return c.call(ctx, http.MethodPost, "/processes/"+name+"/"+verb, nil, nil)
}

// Status lists the processes.
func (c Control) Status(ctx context.Context) (ps []ProcessStatus, err error) {
	return ps, c.call(ctx, http.MethodGet, "/status", nil, &ps)
}

// Records lists the records of the customer's DNS.
func (c Control) Records(ctx context.Context) (rs []Record, err error) {
	return rs, c.call(ctx, http.MethodGet, "/dns", nil, &rs)
}

// SetRecords changes the customer's DNS.
func (c Control) SetRecords(ctx context.Context, change DNSChange) error {
	return c.call(ctx, http.MethodPut, "/dns", change, nil)
}

func (c Control) call(ctx context.Context, method, path string, in, out any) error {
	none := fleet.NewError(fleet.ErrNotFound, "dir", "no fleet runs in %s: start one with 'devfleet up --dir %s', or name its --dir", c.Dir, c.Dir)
	dir, err := os.Open(c.Dir)
	if err != nil {
		return none
	}
	defer func() { _ = dir.Close() }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socketPath(dir))
	}}
	defer transport.CloseIdleConnections()
	b, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://devfleet"+path, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if _, refused := errors.AsType[*net.OpError](err); refused {
		return none
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	return decodeAnswer(resp, out)
}

// decodeAnswer reads v, or the error in its wire form.
func decodeAnswer(resp *http.Response, v any) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16*controlLimit))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		var e fleet.Error
		if json.Unmarshal(b, &e) != nil || e.Message == "" {
			return fmt.Errorf("status %s: %s", resp.Status, strings.TrimSpace(string(b[:min(len(b), 300)])))
		}
		return &e
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

// Logs opens the log of a process. It works after the fleet has stopped too, as long as its directory is there.
func Logs(dir, name string) (*os.File, error) {
	f, err := os.Open(filepath.Join(dir, logDir, filepath.Base(name)+".log"))
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	logs, _ := filepath.Glob(filepath.Join(dir, logDir, "*.log")) // no match and no directory are the same here
	if len(logs) == 0 {
		return nil, fleet.NewError(fleet.ErrNotFound, "dir", "no fleet was started in %s: name its --dir", dir)
	}
	for i, l := range logs {
		logs[i] = strings.TrimSuffix(filepath.Base(l), ".log")
	}
	return nil, fleet.NewError(fleet.ErrNotFound, "name", "there is no log of %q: use one of %v", name, logs)
}
