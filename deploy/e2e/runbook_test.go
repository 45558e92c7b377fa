package e2e_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

// runbook is RUNBOOK.md as its reader has it: commands, by chapter. Every one must be executed.
type runbook struct {
	t *testing.T
	// dir is where the reader works: files that a command writes for the next one are there.
	dir string
	// left are the commands that were not executed yet.
	left map[string][]string
}

var (
	// inline is a command of ours within a sentence.
	inline = regexp.MustCompile("`((?:fleetctl|controlplane|edgesupervisor|edgenode) [a-z][^`]*)`")
	// others are commands that would set the clock of this machine.
	others = regexp.MustCompile(`^(timedatectl|chronyc) `)
	// remark is what follows a command.
	remark = regexp.MustCompile(`\s+#.*$`)
)

func openRunbook(t *testing.T) *runbook {
	t.Helper()
	b := &runbook{t: t, dir: t.TempDir(), left: map[string][]string{}}
	chapter, sentences, block := "", "", ""
	end := func() {
		for _, m := range inline.FindAllStringSubmatch(strings.ReplaceAll(sentences, "\n", " "), -1) {
			b.add(chapter, m[1])
		}
		sentences = ""
	}
	for line := range strings.SplitSeq(string(read(t, "../../RUNBOOK.md")), "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			if block = line[3:]; block != "" && block != "sh" && block != "text" {
				t.Errorf("a block of %q", block)
			}
		case block == "sh":
			command := remark.ReplaceAllString(line, "")
			if command != "" && !strings.HasPrefix(command, "#") && !others.MatchString(command) {
				b.add(chapter, command)
			}
		case block == "" && strings.HasPrefix(line, "## "):
			end()
			chapter = line[3:]
		case block == "":
			sentences += line + "\n"
		}
	}
	end()
	return b
}

func (b *runbook) add(chapter, command string) {
	if !slices.Contains(b.left[chapter], command) {
		b.left[chapter] = append(b.left[chapter], command)
	}
}

// take finds a command in a chapter, and marks it as executed.
func (b *runbook) take(chapter, command string) {
	b.t.Helper()
	i := slices.Index(b.left[chapter], command)
	if i < 0 {
		b.t.Fatalf("the chapter %q has no command %q; not executed yet: %q", chapter, command, b.left[chapter])
	}
	b.left[chapter] = slices.Delete(b.left[chapter], i, i+1)
}

// skip leaves a chapter out.
func (b *runbook) skip(chapter string) { delete(b.left, chapter) }

// finished fails the test if a command was not executed.
func (b *runbook) finished() {
	b.t.Helper()
	for chapter, commands := range b.left {
		for _, c := range commands {
			b.t.Errorf("chapter %q: nothing executes %q", chapter, c)
		}
	}
}

// reader is somebody who follows a chapter at one host.
type reader struct {
	*runbook
	chapter string
	at      *member
	// as are the variables of fleetctl.
	as []string
	// edge and token, where the chapter has one, are the edge host and its join token.
	edge  *runningEdge
	token string
}

// on goes to a member's host with the variables of another one, or its own.
func (b *runbook) on(chapter string, at *member, as []string) *reader {
	return &reader{runbook: b, chapter: chapter, at: at, as: as}
}

// does executes a command of the chapter, with pairs of a placeholder and what stands there, and returns its output.
func (r *reader) does(command string, pairs ...string) string {
	r.t.Helper()
	res := r.tries(command, pairs...)
	if res.code != fleet.ExitOK {
		r.t.Fatalf("%s: %s: exit code %d\n%s%s", r.chapter, command, res.code, res.stdout, res.stderr)
	}
	return strings.TrimSpace(res.stdout)
}

// tries is does for a command that may fail.
func (r *reader) tries(command string, pairs ...string) result {
	r.t.Helper()
	r.take(r.chapter, command)
	text := strings.NewReplacer(pairs...).Replace(command)
	text = strings.NewReplacer("/etc/edgefleet/controlplane.yaml", r.at.file(), "/etc/edgefleet/kek", r.at.kek, "/var/lib/edgefleet/kek", r.at.dir+"/new.kek",
		"/var/lib/edgefleet/controlplane", r.at.data(), "/var/lib/edgefleet", r.at.dir,
		// The users of deploy/systemd are not on this machine.
		"sudo -u edgefleet ", "", " -o edgefleet -g edgefleet", "", " -o root -g root", "").Replace(text)
	var all result
	for part := range strings.SplitSeq(text, " && ") {
		switch {
		case strings.HasPrefix(part, "controlplane run "), part == "systemctl enable --now edgefleet-controlplane", part == "systemctl start edgefleet-controlplane":
			r.at.launch()
			continue
		case part == "systemctl restart edgefleet-controlplane":
			r.at.stop()
			r.at.launch()
			continue
		case part == "systemctl stop edgefleet-controlplane":
			r.at.stop()
			continue
		case part == "systemctl restart edgefleet-controlplane":
			r.at.stop()
			r.at.launch()
			continue
		case strings.HasPrefix(part, "edgesupervisor run "):
			r.edge.start(r.token)
			continue
		case strings.HasPrefix(part, "dig "):
			all.stdout += r.dig(strings.Fields(part)[1:]...)
			continue
		case strings.HasPrefix(part, "curl -s "):
			all.stdout += r.curl(strings.TrimPrefix(part, "curl -s "))
			continue
		}
		res := r.shell(part)
		all = result{res.code, all.stdout + res.stdout, all.stderr + res.stderr}
		if res.code != fleet.ExitOK {
			break
		}
	}
	return all
}

// curl does as the program, which is not on every machine either.
func (r *reader) curl(url string) string {
	r.t.Helper()
	res, err := http.Get(url)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// dig does as the program, which is not on every machine.
func (r *reader) dig(args ...string) string {
	r.t.Helper()
	if len(args) != 4 || args[1] != "-p" {
		r.t.Fatalf("dig %q", args)
	}
	q := new(dns.Msg).SetQuestion(dns.Fqdn(args[3]), dns.TypeA)
	res, err := dns.Exchange(q, net.JoinHostPort(strings.TrimPrefix(args[0], "@"), args[2]))
	if err != nil {
		r.t.Fatal(err)
	}
	return res.String()
}

// shell runs a line by the shell, with the programs under test.
func (r *reader) shell(line string) result {
	r.t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = r.dir
	cmd.Env = append([]string{"PATH=" + binaries + ":" + os.Getenv("PATH"), "HOME=" + r.dir}, r.as...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		r.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// says holds an output against words.
func (r *reader) says(out string, words ...string) {
	r.t.Helper()
	for _, w := range words {
		if !strings.Contains(out, w) {
			r.t.Errorf("%s: the answer lacks %q:\n%s", r.chapter, w, out)
		}
	}
}
