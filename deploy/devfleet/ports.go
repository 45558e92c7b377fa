package devfleet

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

	"github.com/edgefleet/edgefleet/fleet"
)

// checkPorts binds and releases every address; the error names each busy one, who has it, and what to do.
func checkPorts(ctx context.Context, ls []listener) error {
	var busy []string
	for _, l := range ls {
		err := tryListen(ctx, l)
		switch {
		case err == nil:
		case errors.Is(err, syscall.EADDRINUSE):
			busy = append(busy, fmt.Sprintf("  %s %s is in use%s", l.network, l.address, ownerOf(l)))
		default:
			return fmt.Errorf("bind %s %s: %w", l.network, l.address, err)
		}
	}
	if len(busy) == 0 {
		return nil
	}
	return fleet.NewError(fleet.ErrConflict, "address", "%d of the addresses that the fleet needs are taken:\n%s\nstop what uses them, or start the fleet "+
		"elsewhere with --address-block N (1 to 255)", len(busy), strings.Join(busy, "\n"))
}

func tryListen(ctx context.Context, l listener) error {
	var lc net.ListenConfig
	if l.network == "udp" {
		c, err := lc.ListenPacket(ctx, l.network, l.address)
		if err != nil {
			return err
		}
		return c.Close()
	}
	c, err := lc.Listen(ctx, l.network, l.address)
	if err != nil {
		return err
	}
	return c.Close()
}

// ownerOf finds the process that holds an address, through /proc; empty when it cannot be seen (another user's).
func ownerOf(l listener) string {
	inodes := socketInodes(l)
	if len(inodes) == 0 {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/[0-9]*") // the pattern is constant, so there is no error to handle
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !slices.Contains(inodes, target) {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		comm, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			comm = []byte("unknown")
		}
		return fmt.Sprintf(" by %s (pid %s)", strings.TrimSpace(string(comm)), pid)
	}
	return ""
}

// socketInodes lists the sockets bound to an address (or to all addresses) as /proc/<pid>/fd links show them.
func socketInodes(l listener) []string {
	want, err := netip.ParseAddrPort(l.address)
	if err != nil {
		return nil
	}
	var inodes []string
	for _, table := range []string{l.network, l.network + "6"} {
		b, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 {
				continue
			}
			local, ok := parseProcAddress(f[1])
			listening := f[3] == "0A" || l.network == "udp"
			if ok && listening && local.Port() == want.Port() && (local.Addr() == want.Addr() || local.Addr().IsUnspecified()) {
				inodes = append(inodes, "socket:["+f[9]+"]")
			}
		}
	}
	return inodes
}

// parseProcAddress reads the address form of /proc/net/tcp: 32-bit words in host (little-endian) order, hex.
func parseProcAddress(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	p, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || (len(b) != 4 && len(b) != 16) {
		return netip.AddrPort{}, false
	}
	for w := 0; w < len(b); w += 4 {
		slices.Reverse(b[w : w+4])
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}
