package storetest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the database/sql driver "pgx"
)

// Postgres is a real PostgreSQL on loopback with files of its own; it can be killed and started again.
type Postgres struct {
	bin, dir string
	port     int
	as       *syscall.Credential
	log      bytes.Buffer

	mu  sync.Mutex
	cmd *exec.Cmd
	dbs map[string]string
}

// password has the characters that connection strings get wrong.
const password = "p@ss:w/rd%'"

// StartPostgres starts a server; the test is skipped where Debian's package is not installed.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Skip("no PostgreSQL here (Debian: apt-get install postgresql, or make peers): its event store is not tested")
	}
	p := &Postgres{bin: filepath.Dir(slices.Max(found)), dbs: map[string]string{}}
	if p.dir, err = os.MkdirTemp("", "postgres-"); err != nil { //nolint:usetesting // root's are closed to the account that the server must run as
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(p.dir) })
	pwfile := filepath.Join(p.dir, "password")
	if err := os.WriteFile(pwfile, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		p.as = account(t)
		if err := errors.Join(os.Chown(p.dir, int(p.as.Uid), int(p.as.Gid)), os.Chown(pwfile, int(p.as.Uid), int(p.as.Gid))); err != nil {
			t.Fatal(err)
		}
	}
	init := p.command(t.Context(), "initdb", "-D", p.data(), "-U", "edgefleet", "-A", "scram-sha-256", "--pwfile", pwfile, "-E", "UTF8", "--locale=C", "-N")
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	p.port = freePort(t)
	p.Start(t)
	t.Cleanup(func() { p.stop(syscall.SIGINT) })
	return p
}

// account is one that the server may run as; it refuses root.
func account(t testing.TB) *syscall.Credential {
	t.Helper()
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
			gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	t.Skip("no account that PostgreSQL can run as: it refuses root")
	return nil
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

func (p *Postgres) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	return cmd
}

// Start starts the server again, on the same port and files, and waits until it answers.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd = p.command(context.Background(), "postgres", "-D", p.data(), "-p", strconv.Itoa(p.port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "shared_buffers=32MB", "-c", "max_connections=80")
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	db := p.open(t, "postgres")
	defer func() { _ = db.Close() }()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := db.PingContext(t.Context())
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("PostgreSQL does not answer within a minute: %v", err)
		}
	}
}

// Kill ends the server as a crash does.
func (p *Postgres) Kill() { p.stop(syscall.SIGQUIT) }

func (p *Postgres) stop(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	_ = p.cmd.Wait()
	p.cmd = nil
}

func (p *Postgres) open(t testing.TB, database string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", p.dsn(database))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func (p *Postgres) dsn(database string) string {
	return (&url.URL{
		Scheme: "postgres", User: url.UserPassword("edgefleet", password), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)),
		Path: database, RawQuery: "sslmode=disable",
	}).String()
}

// DSN returns the connection string of the database that stands for dir, made if need be.
func (p *Postgres) DSN(t testing.TB, dir string) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	name, ok := p.dbs[dir]
	if !ok {
		name = fmt.Sprintf("d%d", len(p.dbs))
		db := p.open(t, "postgres")
		defer func() { _ = db.Close() }()
		if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
			t.Fatal(err)
		}
		p.dbs[dir] = name
	}
	return p.dsn(name)
}
