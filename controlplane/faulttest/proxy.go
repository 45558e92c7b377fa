package faulttest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// connectLimit bounds a proxy's connection to the member behind it.
const connectLimit = 5 * time.Second

// proxy stands in front of one port of a member, for connections of other members: what goes through it goes as the
// network says.
type proxy struct {
	net    *Network
	member fleet.MemberID
	// from is the address that others know, to the one that the member listens on.
	from, to string
	// whose says which member a process is.
	whose func(pid int) fleet.MemberID
}

// run carries connections until ctx ends.
func (p proxy) run(ctx context.Context, l net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go p.serve(ctx, c)
	}
}

func (p proxy) serve(ctx context.Context, c net.Conn) {
	other := p.whose(owner(c))
	limit, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	if p.net.Pass(limit, other, p.member) != nil || p.net.Pass(limit, p.member, other) != nil {
		_ = c.Close()
		return
	}
	behind, err := (&net.Dialer{}).DialContext(limit, "tcp", p.to)
	if err != nil {
		_ = c.Close()
		return
	}
	live, end := context.WithCancel(ctx)
	a, b := p.net.track(c, pair{other, p.member}, end), p.net.track(behind, pair{p.member, other}, end)
	stop := context.AfterFunc(live, func() { _, _ = a.Close(), b.Close() })
	defer stop()
	go p.net.carry(live, pair{p.member, other}, b, a)
	p.net.carry(live, pair{other, p.member}, a, b)
}

// owner is the process at the other end of a connection on this machine, 0 if it is not found.
func owner(c net.Conn) int {
	_, port, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return 0
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return 0
	}
	_, here, err := net.SplitHostPort(c.LocalAddr().String())
	if err != nil {
		return 0
	}
	local, err := strconv.Atoi(here)
	if err != nil {
		return 0
	}
	ip := c.LocalAddr().(*net.TCPAddr).IP.To4() //nolint:forcetypeassert // proxies listen on TCP
	word := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], local)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table) //nolint:gosec // one of two
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) > 9 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) && strings.HasSuffix(f[2], word) {
				return holder(f[9])
			}
		}
	}
	return 0
}

// holder is the process that has a socket.
func holder(inode string) int {
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is well-formed
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil || filepath.Base(exe) != "controlplane" {
			continue
		}
		fds, _ := filepath.Glob(filepath.Dir(link) + "/fd/*") // the pattern is well-formed
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && to == "socket:["+inode+"]" {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(link))) // the pattern says that it is one
				return pid
			}
		}
	}
	return 0
}
