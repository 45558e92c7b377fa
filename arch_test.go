// Package edgefleet_test holds the tests of the repository as a whole: the architecture's rules.
package edgefleet_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/edgefleet/edgefleet"

// arrows lists, for every area, the areas it may import. An area is the longest matching prefix of a package's path;
// a package may always import its own area. An unknown area fails the test.
var arrows = map[string][]string{
	"fleet":         {},
	"observability": {"fleet"},
	"rollout":       {"fleet"},
	"tls":           {"fleet", "observability"},

	"controlplane/command":      {"fleet"},
	"controlplane/state":        {"fleet", "controlplane/command"},
	"controlplane/fsm":          {"fleet", "controlplane/command", "controlplane/state"},
	"controlplane/pacing":       {},
	"controlplane/consensus":    {"fleet", "observability", "tls", "controlplane/pacing", "controlplane/command", "controlplane/state", "controlplane/fsm"},
	"controlplane/leader":       {"fleet", "observability", "rollout", "tls", "controlplane/command", "controlplane/state", "controlplane/dns"},
	"controlplane/keys":         {"fleet", "tls"},
	"controlplane/client":       {"fleet"},
	"controlplane/backup":       {"fleet", "observability", "tls", "controlplane/pacing", "controlplane/keys", "controlplane/state"},
	"controlplane/bus":          {"fleet", "observability", "tls"},
	"controlplane/blobs":        {"fleet", "tls", "controlplane/keys", "controlplane/state"},
	"controlplane/audit":        {"fleet", "observability", "controlplane/state"},
	"controlplane/dns":          {"fleet", "observability", "controlplane/state"},
	"controlplane/events":       {"fleet", "observability"},
	"controlplane/discovery":    {"fleet", "observability"},
	"controlplane/faulttest":    {"fleet", "observability", "tls", "controlplane", "controlplane/command", "controlplane/state", "controlplane/fsm", "controlplane/consensus", "controlplane/keys", "controlplane/leader", "controlplane/client", "controlplane/blobs", "controlplane/audit", "controlplane/api", "loadtest"},
	"controlplane/api":          {"fleet", "observability", "tls", "controlplane/command", "controlplane/state", "controlplane/keys", "controlplane/backup", "controlplane/client", "controlplane/bus", "controlplane/blobs", "controlplane/dns", "controlplane/events", "controlplane/audit"},
	"controlplane":              {"fleet", "observability", "rollout", "tls", "controlplane/command", "controlplane/state", "controlplane/fsm", "controlplane/consensus", "controlplane/keys", "controlplane/backup", "controlplane/leader", "controlplane/client", "controlplane/bus", "controlplane/blobs", "controlplane/dns", "controlplane/events", "controlplane/audit", "controlplane/discovery", "controlplane/api"},
	"controlplane/cmd":          {"fleet", "observability", "controlplane", "controlplane/api"},
	"controlplane/cmd/fleetctl": {"fleet", "controlplane/client"},

	"edgenode": {"fleet", "observability", "tls"},
	"deploy":   {"fleet", "observability", "controlplane/client"},

	"loadtest": {"fleet", "observability", "tls", "controlplane", "controlplane/client", "controlplane/state", "controlplane/consensus", "controlplane/fsm", "controlplane/command", "edgenode", "deploy"},
}

// deterministic lists the packages whose code runs inside FSM.Apply.
var deterministic = []string{"fleet", "fleet/head", "fleet/bundle", "fleet/audit", "rollout", "controlplane/command", "controlplane/state", "controlplane/fsm"}

// notLinked lists, for each binary that faces attackers, modules that it must not contain.
var notLinked = map[string][]string{
	"edgenode/cmd/edgenode":       {"github.com/hashicorp/raft", "github.com/nats-io/nats-server", "github.com/hashicorp/consul", "github.com/caddyserver/certmagic", "github.com/mholt/acmez", "github.com/minio", "modernc.org/sqlite", module + "/controlplane"},
	"edgenode/cmd/edgesupervisor": {"github.com/hashicorp/raft", "github.com/nats-io/nats-server", "github.com/hashicorp/consul", "github.com/caddyserver/certmagic", "github.com/mholt/acmez", "github.com/minio", "modernc.org/sqlite", module + "/controlplane", "github.com/corazawaf/coraza"},
	"controlplane/cmd/fleetctl":   {"github.com/hashicorp/raft/", "github.com/hashicorp/consul", "github.com/nats-io/nats-server", "github.com/corazawaf/coraza", "github.com/minio", "modernc.org/sqlite"},
}

// maxLines is the length at which a file is split by concern.
const maxLines = 600

type pkg struct {
	ImportPath, Dir, Doc   string
	Imports, GoFiles, Deps []string
}

func packages(t *testing.T, args ...string) []pkg {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Doc,Imports,GoFiles,Deps"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var ps []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return ps
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
}

// area is the longest key of arrows that is rel or a directory above it.
func area(importPath string) (name string, ours bool) {
	rel, ours := strings.CutPrefix(importPath, module+"/")
	if !ours {
		return "", false
	}
	for a := rel; a != "."; a = filepath.Dir(a) {
		if _, ok := arrows[a]; ok {
			return a, true
		}
	}
	return rel, true
}

func TestImportArrows(t *testing.T) {
	for _, p := range packages(t, "./...") {
		from, ours := area(p.ImportPath)
		if !ours {
			continue
		}
		allowed, known := arrows[from]
		if !known {
			t.Errorf("%s: no arrows declared for %q", p.ImportPath, from)
		}
		for _, imp := range p.Imports {
			to, ours := area(imp)
			if ours && to != from && !slices.Contains(allowed, to) {
				t.Errorf("%s must not import %s", p.ImportPath, imp)
			}
		}
	}
}

func TestDomainImportsTheStandardLibraryOnly(t *testing.T) {
	for _, p := range packages(t, "./fleet", "./fleet/head", "./fleet/bundle", "./fleet/audit") {
		for _, imp := range p.Imports {
			if strings.Contains(strings.Split(imp, "/")[0], ".") && !strings.HasPrefix(imp, module+"/fleet") {
				t.Errorf("%s must not import %s", p.ImportPath, imp)
			}
		}
	}
}

func TestEdgeBinariesLinkNoControlPlane(t *testing.T) {
	for binary, banned := range notLinked {
		for _, p := range packages(t, "-deps", "./"+binary) {
			for _, b := range banned {
				if p.ImportPath == b || strings.HasPrefix(p.ImportPath, strings.TrimSuffix(b, "/")+"/") {
					t.Errorf("%s links %s", binary, p.ImportPath)
				}
			}
		}
	}
}

func TestStateMachineIsDeterministic(t *testing.T) {
	banned := map[string]string{"time.Now": "take the time from the command", "time.Since": "take the time from the command", "rand.": "take randomness from the command"}
	for _, p := range packages(t, "./...") {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		if !slices.Contains(deterministic, rel) {
			continue
		}
		for _, f := range p.GoFiles {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, f), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: no goroutines in %s", fset.Position(n.Pos()), rel)
				case *ast.SelectorExpr:
					x, ok := n.X.(*ast.Ident)
					for bad, why := range banned {
						if ok && strings.HasPrefix(x.Name+"."+n.Sel.Name, bad) {
							t.Errorf("%s: %s.%s in %s: %s", fset.Position(n.Pos()), x.Name, n.Sel.Name, rel, why)
						}
					}
				}
				return true
			})
		}
	}
}

func TestEveryPackageHasADoc(t *testing.T) {
	for _, p := range packages(t, "./...") {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func TestNoFileIsTooLong(t *testing.T) {
	for _, p := range packages(t, "./...") {
		for _, f := range p.GoFiles {
			file, err := os.Open(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			lines := 0
			for s := bufio.NewScanner(file); s.Scan(); {
				lines++
			}
			_ = file.Close()
			if lines > maxLines {
				t.Errorf("%s/%s has %d lines: split it by concern", p.ImportPath, f, lines)
			}
		}
	}
}
