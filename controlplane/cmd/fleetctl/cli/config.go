package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"

	"github.com/edgefleet/edgefleet/fleet"
)

// config is the context file.
type config struct {
	// Current is the context that is used unless --context names another.
	Current  string              `yaml:"current,omitempty"`
	Contexts map[string]settings `yaml:"contexts,omitempty"`
}

// settings say how to reach the API, and as whom.
type settings struct {
	Addr []string `yaml:"addr,omitempty"`
	// CACert and TokenFile are absolute paths.
	CACert    string         `yaml:"cacert,omitempty"`
	Token     string         `yaml:"token,omitempty"`
	TokenFile string         `yaml:"token_file,omitempty"`
	Tenant    fleet.TenantID `yaml:"tenant,omitempty"`
}

func (a *app) configPath() (string, error) {
	if p := a.Getenv("FLEETCTL_CONFIG"); p != "" {
		return p, nil
	}
	dir := a.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home := a.Getenv("HOME")
		if home == "" {
			return "", fleet.Invalid("FLEETCTL_CONFIG", "no home directory for the context file: set FLEETCTL_CONFIG")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "fleetctl", "config.yaml"), nil
}

// loadConfig reads the context file; one that does not exist is empty.
func (a *app) loadConfig() (config, error) {
	var c config
	path, err := a.configPath()
	if err != nil {
		return c, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fleet.Invalid("FLEETCTL_CONFIG", "%v", err)
	}
	b, err := a.readFile("FLEETCTL_CONFIG", path)
	if err != nil {
		return c, err
	}
	if err := decodeYAML(path, b, &c, func() error { return nil }); err != nil {
		return c, err
	}
	for name, s := range c.Contexts {
		if s.Token != "" && info.Mode().Perm()&0o077 != 0 {
			return c, fleet.NewError(fleet.ErrDenied, "token",
				"%s holds the token of context %s and others may read it (mode %#o): run 'chmod 600 %s', and revoke the token if the machine is shared", path, name, info.Mode().Perm(), path)
		}
	}
	return c, nil
}

// saveConfig replaces the context file; whoever reads it sees the old one or the new one.
func (a *app) saveConfig(c config) error {
	path, err := a.configPath()
	if err != nil {
		return err
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode the context file: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write the context file: %w", err)
	}
	if err := replaceFile(path, func(f *os.File) error { _, err := f.Write(b); return err }); err != nil {
		return fmt.Errorf("write the context file: %w", err)
	}
	return nil
}

// replaceFile writes a file with mode 0600 in one step: it is complete or as it was before.
func replaceFile(path string, fill func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // made with mode 0600
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
