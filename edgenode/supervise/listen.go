package supervise

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/handoff"
	"github.com/edgefleet/edgefleet/edgenode/settings"
	"github.com/edgefleet/edgefleet/fleet"
)

// listen binds the sockets that workers inherit. When a worker of a supervisor that was killed still drains on a port, it
// waits for it up to the drain timeout.
func listen(ctx context.Context, s settings.Settings, worker string) ([]handoff.Socket, error) {
	wanted := []struct{ name, field, address string }{
		{handoff.HTTPS, "https_listen", s.HTTPSListen}, {handoff.HTTP, "http_listen", s.HTTPListen},
	}
	if s.AdminListen != settings.AdminOff {
		wanted = append(wanted, struct{ name, field, address string }{handoff.Admin, "admin_listen", s.AdminListen})
	}
	var sockets []handoff.Socket
	deadline := time.Now().Add(s.DrainTimeout)
	for _, w := range wanted {
		f, err := bind(ctx, w.field, w.address, worker, deadline)
		if err != nil {
			closeSockets(sockets)
			return nil, err
		}
		sockets = append(sockets, handoff.Socket{Name: w.name, File: f})
	}
	return sockets, nil
}

func closeSockets(sockets []handoff.Socket) {
	for _, s := range sockets {
		_ = s.File.Close()
	}
}

func bind(ctx context.Context, field, address, worker string, deadline time.Time) (*os.File, error) {
	for {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err == nil {
			return socketFile(l)
		}
		switch {
		case errors.Is(err, syscall.EACCES):
			return nil, fleet.NewError(fleet.ErrDenied, field, "%s: not allowed to listen at %s: ports below 1024 need CAP_NET_BIND_SERVICE "+
				"(systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE) or root", field, address)
		case !errors.Is(err, syscall.EADDRINUSE):
			return nil, fleet.Invalid(field, "%s: cannot listen at %s: %v", field, address, err)
		}
		pid, program := portHolder(address)
		if pid != 0 && program == worker && time.Now().Before(deadline) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		by := "by another process"
		if pid != 0 {
			by = fmt.Sprintf("by process %d (%s)", pid, program)
		}
		return nil, fleet.NewError(fleet.ErrConflict, field, "%s: %s is in use %s: stop it, or choose another address", field, address, by)
	}
}

func socketFile(l net.Listener) (*os.File, error) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listener is a %T", l), l.Close())
	}
	f, err := tcp.File()
	return f, errors.Join(err, l.Close())
}

// portHolder finds who listens at the address's port, by /proc; 0 when that cannot be seen.
func portHolder(address string) (pid int, program string) {
	host, port, err := net.SplitHostPort(address)
	number, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil {
		return 0, ""
	}
	inodes := listeningInodes(host, uint16(number))
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0, ""
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !slices.Contains(inodes, target) {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		if pid, err = strconv.Atoi(filepath.Base(dir)); err != nil {
			continue
		}
		program, err = os.Readlink(filepath.Join(dir, "exe"))
		if err != nil {
			program = "unknown program"
		}
		return pid, program
	}
	return 0, ""
}

// listeningInodes are the sockets that listen at a port and at the host's address or at all, as /proc/<pid>/fd names them.
func listeningInodes(host string, port uint16) []string {
	const stateListen = "0A"
	var out []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == stateListen && conflicts(f[1], host, port) {
				out = append(out, "socket:["+f[9]+"]")
			}
		}
	}
	return out
}

// conflicts reports whether a local address of /proc/net/tcp, such as 0100007F:1F90, keeps host:port from being bound.
func conflicts(local, host string, port uint16) bool {
	a, p, _ := strings.Cut(local, ":")
	if n, err := strconv.ParseUint(p, 16, 16); err != nil || uint16(n) != port {
		return false
	}
	b, err := hex.DecodeString(a)
	if err != nil {
		return false
	}
	for i := 0; i+4 <= len(b); i += 4 { // each 32-bit word is in the host's order, little-endian
		slices.Reverse(b[i : i+4])
	}
	bound, ok := netip.AddrFromSlice(b)
	want, err := netip.ParseAddr(host)
	return ok && (err != nil || want.IsUnspecified() || bound.IsUnspecified() || bound.Unmap() == want.Unmap())
}
