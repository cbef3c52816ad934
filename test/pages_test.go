package test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// pages are those of docs that a stranger follows, in the order in which they
// are run: a later one finds what an earlier one has made.
var pages = []string{"start", "uris", "tuning", "consistency", "troubleshooting", "recipes"}

// Every command in the pages works, as it stands there, and says what stands
// below it. A block marked `sh` is run; in one marked `console`, what follows a
// line with "$ " is its output, in which "…" is anything. Each line of a block
// must succeed, but for one that says with which exit code it ends.
//
// They run as root of a machine of their own, as far as namespaces make one:
// its ports, mounts and processes are gone with its first process.
func TestPages(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test makes namespaces: run it as root")
	}
	sh := newShell(t)
	for _, name := range pages {
		ok := t.Run(name, func(t *testing.T) {
			n := 0
			for _, c := range commandsIn(t, filepath.Join("..", "docs", name+".md")) {
				if !sh.run(t, c) {
					return
				}
				n++
			}
			t.Logf("%d commands", n)
		})
		if !ok {
			return // the next page begins where this one should have ended
		}
	}
}

// pageCommand is what a page has to be typed.
type pageCommand struct {
	where, text string
	output      string // what it must say, where checked
	checked     bool
	code        int // with which it must end
}

var exitCode = regexp.MustCompile(`# exit code (\d+)$`)

func commandsIn(t *testing.T, page string) (all []pageCommand) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	kind := ""
	for i, line := range strings.Split(string(b), "\n") {
		at := fmt.Sprintf("%s:%d", page, i+1)
		switch {
		case strings.HasPrefix(line, "```"):
			kind = strings.TrimPrefix(line, "```")
			if kind == "sh" {
				all = append(all, pageCommand{where: at})
			}
		case kind == "sh":
			all[len(all)-1].text += line + "\n"
		case kind == "console" && strings.HasPrefix(line, "$ "):
			all = append(all, pageCommand{where: at, text: line[2:] + "\n", checked: true})
			if m := exitCode.FindStringSubmatch(line); m != nil {
				fmt.Sscan(m[1], &all[len(all)-1].code)
			}
		case kind == "console":
			all[len(all)-1].output += line + "\n"
		}
	}
	return all
}

// shell is a bash in namespaces of its own.
type shell struct {
	in    *os.File
	lines chan string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	bin, home := t.TempDir(), t.TempDir()
	built, err := binary()
	if err == nil {
		err = os.Symlink(built, filepath.Join(bin, "mlflowfs"))
	}
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash")
	c.Dir = home
	c.Env = []string{"HOME=" + home, "LANG=C.UTF-8", "PATH=" + bin + ":" + filepath.Dir(release("mlflow3").bin("x")) + ":" + os.Getenv("PATH"),
		"PYTHONWARNINGS=ignore", "MLFLOW_DISABLE_TELEMETRY=true", "GIT_PYTHON_REFRESH=quiet", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT=true", noMetadata}
	stdin, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stdout
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	stdout.Close()
	s := &shell{in: in, lines: make(chan string, 1000)}
	go func() {
		defer close(s.lines)
		for r := bufio.NewReader(out); ; {
			l, err := r.ReadString('\n')
			if err != nil {
				return
			}
			s.lines <- l
		}
	}()
	t.Cleanup(func() {
		in.Close()
		c.Process.Kill()
		c.Wait()
		out.Close()
	})
	s.run(t, pageCommand{where: "the machine", text: "ip link set lo up && mount -t tmpfs none /mnt && set -o pipefail\n"})
	return s
}

const endOfCommand = "end of command "

// run types a command, and waits for its end.
func (s *shell) run(t *testing.T, c pageCommand) bool {
	t.Helper()
	if !c.checked { // a block of several lines stops at the first that fails
		c.text = "set -e\n" + c.text + "set +e\n"
	}
	// A subshell would lose what a page exports, and a job that it starts.
	const end = "__code=$?; echo; echo " + endOfCommand + "$__code"
	fmt.Fprintf(s.in, "trap '%s' EXIT\n%s%s; trap - EXIT\n", end, c.text, end)
	var out strings.Builder
	for late := time.After(5 * time.Minute); ; {
		select {
		case l, ok := <-s.lines:
			if !ok {
				t.Errorf("%s: the shell ended:\n%s%s", c.where, c.text, out.String())
				return false
			}
			code, is := strings.CutPrefix(l, endOfCommand)
			if !is {
				out.WriteString(l)
				continue
			}
			got := strings.TrimSuffix(out.String(), "\n")
			if strings.TrimSpace(code) != fmt.Sprint(c.code) {
				t.Errorf("%s: ends with %s\n%s%s", c.where, strings.TrimSpace(code), c.text, tail(got))
				return false
			}
			if c.checked && !says(got, c.output) {
				t.Errorf("%s: %ssays\n%sand not\n%s", c.where, c.text, tail(got), c.output)
				return false
			}
			return true
		case <-late:
			t.Errorf("%s: no end of\n%s%s", c.where, c.text, tail(out.String()))
			return false
		}
	}
}

// says tells whether an output is what a page shows, where "…" is anything.
func says(got, shown string) bool {
	parts := strings.Split(strings.TrimSpace(shown), "…")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	ok, _ := regexp.MatchString(`(?s)\A\s*`+strings.Join(parts, ".*")+`\s*\z`, strings.TrimSpace(got))
	return ok
}
