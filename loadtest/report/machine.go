package report

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// Machine is where a load test ran.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	// Disk is the device and file system that held the data.
	Disk string `json:"disk"`
	// Load is the load average over a minute when the test began: above a few tenths, others were at work too.
	Load string `json:"load"`
}

// String is the machine in one line.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %s, kernel %s, %s, data on %s, load %s", m.CPU, m.Cores, m.Memory, m.Kernel, m.Go, m.Disk, m.Load)
}

// ThisMachine describes the machine; dir is where the data will be. What cannot be learned is "unknown".
func ThisMachine(dir string) Machine {
	m := Machine{
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Memory: field("/proc/meminfo", "MemTotal"),
		Kernel: "unknown", Go: runtime.Version(), Disk: disk(dir), Load: "unknown",
	}
	var u syscall.Utsname
	if syscall.Uname(&u) == nil {
		m.Kernel = text(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Fields(string(b) + " unknown")[0]
	}
	return m
}

func text(chars []int8) string {
	var b strings.Builder
	for _, c := range chars {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

// field is the value of the first line "name : value" of a file of /proc.
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// disk finds the mount that dir is on: the longest mount point above it.
func disk(dir string) string {
	b, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return "unknown"
	}
	best, found := "", "unknown"
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < len(best) {
			continue
		}
		if f[1] == "/" || dir == f[1] || strings.HasPrefix(dir, f[1]+"/") {
			best, found = f[1], f[0]+" ("+f[2]+")"
		}
	}
	return found
}
