package edgefleet_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	fenced  = regexp.MustCompile("(?ms)^```.*?^```$")
	notID   = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are the ids that headings get where the documents are read.
func anchors(markdown string) (out []string) {
	for _, h := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(markdown, ""), -1) {
		out = append(out, strings.ReplaceAll(notID.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
	}
	return out
}

func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	files, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"docs/*.md", "docs/adr/*.md", "*/README.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	checked := 0
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // a document of this repository
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range link.FindAllStringSubmatch(fenced.ReplaceAllString(string(text), ""), -1) {
			if strings.Contains(l[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(l[1], "#")
			target, content := file, text
			if path != "" {
				target = filepath.Join(filepath.Dir(file), path)
				if content, err = os.ReadFile(target); err != nil && !isDir(target) { //nolint:gosec // as above
					t.Errorf("%s: link %s: there is no %s", file, l[1], target)
					continue
				}
			}
			if anchor != "" && !slices.Contains(anchors(string(content)), anchor) {
				t.Errorf("%s: link %s: %s has no such heading", file, l[1], target)
			}
			checked++
		}
	}
	if checked < 20 {
		t.Errorf("only %d links were found: the test proves nothing", checked)
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
