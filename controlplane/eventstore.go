package controlplane

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/fleet"
)

// envName is what an environment variable is called.
var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// maxDSN bounds the file with a connection string.
const maxDSN = 16 << 10

func (e Events) validate() error {
	p := e.Postgres
	switch {
	case p.DSNFile != "" && p.DSNEnv != "":
		return fleet.Invalid("events.postgres.dsn_env", "dsn_file is set too: give one of them")
	case p.DSNFile != "" && !filepath.IsAbs(p.DSNFile):
		return fleet.Invalid("events.postgres.dsn_file", "%q is not an absolute path", p.DSNFile)
	case p.DSNEnv != "" && !envName.MatchString(p.DSNEnv):
		return fleet.Invalid("events.postgres.dsn_env", "%d characters that are no name of an environment variable, such as EDGEFLEET_EVENTS_DSN: the connection string itself has no place in this file", len(p.DSNEnv))
	}
	return nil
}

// open returns where the PostgreSQL is; nil if events are kept by each member.
func (p EventsPostgres) open() (*events.Postgres, error) {
	switch {
	case p.DSNEnv != "":
		dsn := os.Getenv(p.DSNEnv)
		if dsn == "" {
			return nil, fleet.Invalid("events.postgres.dsn_env", "the environment variable %s is not set or empty", p.DSNEnv)
		}
		return &events.Postgres{DSN: dsn}, nil
	case p.DSNFile != "":
		info, err := os.Stat(p.DSNFile)
		if err == nil && info.Size() > maxDSN {
			return nil, fleet.Invalid("events.postgres.dsn_file", "%s has %d bytes: a connection string has at most %d", p.DSNFile, info.Size(), maxDSN)
		}
		var b []byte
		if err == nil {
			b, err = os.ReadFile(p.DSNFile)
		}
		if err != nil {
			return nil, fleet.Invalid("events.postgres.dsn_file", "cannot be read: %v", err)
		}
		return &events.Postgres{DSN: strings.TrimSpace(string(b))}, nil
	}
	return nil, nil
}
