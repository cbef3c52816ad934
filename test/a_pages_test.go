package test

import (
	"archive/zip"
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// pages are those that a stranger follows, in the order in which they are run: a
// later one finds what an earlier one has made.
var pages = []string{"docs/start.md", "README.md", "docs/python.md", "docs/uris.md", "docs/tuning.md", "docs/consistency.md", "docs/troubleshooting.md", "docs/recipes.md"}

// TestPagesSayWhatIsSo fails when a command in the pages does not work as it
// stands there, or does not say what stands below it.
func TestPagesSayWhatIsSo(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it makes namespaces")
	sh := newShell(t)
	for _, name := range pages {
		ok := t.Run(name, func(t *testing.T) {
			n := 0
			for _, c := range commandsIn(t, filepath.Join("..", name)) {
				begin := time.Now()
				if !sh.run(t, c) {
					return
				}
				if took := time.Since(begin); took > 5*time.Second {
					first, _, _ := strings.Cut(c.text, "\n")
					t.Logf("%s: %v for %.60s", c.where, took.Round(time.Second), first)
				}
				n++
			}
			t.Logf("%d commands", n)
		})
		if !ok {
			return // the next page begins where this one should have ended
		}
	}
	sh.run(t, pageCommand{where: "what go install has made", text: "$GOBIN/mlflowfs --version\n", output: "…" + released + "…", checked: true})
}

// TestPagesNameWhatThereIs fails when a sentence or a synopsis of a page has a
// command that is none, or a flag that it has not.
func TestPagesNameWhatThereIs(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../docs/*.md")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	help := map[string]string{}
	for _, file := range append(files, "../README.md") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, said := range synopsis.FindAllStringSubmatch(string(b), -1) {
			for _, command := range strings.Split(said[1], " | ") {
				if _, ok := help[command]; !ok {
					out, err := mlflowfs(t, nil, append(strings.Fields(command), "--help")...).Output()
					if err != nil || !strings.Contains(string(out), "mlflowfs "+command) {
						t.Errorf("%s: `mlflowfs %s`: %v", file, command, err)
					}
					help[command] = string(out)
				}
				for _, flag := range flagName.FindAllString(said[2], -1) {
					if !strings.Contains(help[command], flag) {
						t.Errorf("%s: mlflowfs %s has no %s", file, command, flag)
					}
				}
			}
		}
	}
	if len(help) < 12 {
		t.Errorf("only %v were found", slices.Sorted(maps.Keys(help)))
	}
}

var (
	synopsis = regexp.MustCompile("(?m)(?:^    |`)mlflowfs ((?:config )?[a-z]+(?: \\| [a-z]+)*)([^`\n]*)")
	flagName = regexp.MustCompile(`--[a-z][a-z-]+`)
)

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
	venv, home := besideMLflow(t), t.TempDir()
	c := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash")
	c.Dir = home
	c.Env = append(asReleased(t), "HOME="+home, "LANG=C.UTF-8", "PATH="+venv+"/bin:"+filepath.Dir(release("mlflow3").bin("x"))+":"+os.Getenv("PATH"),
		// pip installs what was built here.
		"PIP_NO_INDEX=1", "PIP_FIND_LINKS="+filepath.Dir(builtWheel(t)), "PIP_DISABLE_PIP_VERSION_CHECK=1",
		"PYTHONWARNINGS=ignore", "MLFLOW_DISABLE_TELEMETRY=true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "GIT_PYTHON_REFRESH=quiet", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT=true", noMetadata,
		// One worker of the server's four, and no second process that loads each model
		// to see what it imports: MLflow then writes down what its flavor needs.
		"MLFLOW_WORKERS=1", "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT=1")
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
	s.run(t, pageCommand{where: "the machine", text: aloneInNamespace + " && ip link set lo up && mount -t tmpfs none /mnt && set -o pipefail\n"})
	// What go install brings stays here, too.
	s.run(t, pageCommand{where: "its modules", text: "mkdir ~/over && mount -t tmpfs none ~/over && mkdir ~/over/up ~/over/work\n" +
		"mount -t overlay none -o lowerdir=$GOMODCACHE,upperdir=$HOME/over/up,workdir=$HOME/over/work $GOMODCACHE\n"})
	return s
}

// besideMLflow is a new virtual environment that has MLflow and what comes with it.
func besideMLflow(t *testing.T) string {
	t.Helper()
	venv := filepath.Join(t.TempDir(), "venv")
	if _, err := output("python3", "-m", "venv", venv); err != nil {
		t.Fatal(err)
	}
	where := "import sysconfig; print(sysconfig.get_path('purelib'))"
	theirs, terr := output(release("mlflow3").bin("python"), "-c", where)
	ours, oerr := output(venv+"/bin/python", "-c", where)
	if err := errors.Join(terr, oerr); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(strings.TrimSpace(string(ours)), "mlflow.pth"), theirs, 0o644); err != nil {
		t.Fatal(err)
	}
	return venv
}

// released is another version each time: the go command keeps what it has found in
// one, and takes it for final.
var released = fmt.Sprint("v0.9.", time.Now().Unix())

// asReleased is the environment in which `go install …@latest` finds this project,
// as it stands here, as its release: a module proxy that is a directory
// (go.dev/ref/mod#goproxy-protocol), beside the modules that were fetched.
func asReleased(t *testing.T) []string {
	t.Helper()
	proxy := t.TempDir()
	const module = "github.com/mlflowfs/mlflowfs"
	at := filepath.Join(proxy, module, "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"list": released + "\n", released + ".info": `{"Version":"` + released + `"}`, released + ".mod": string(mod)} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := zipModule(filepath.Join(at, released+".zip"), module+"@"+released); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "env", "GOMODCACHE", "GOCACHE").Output()
	dirs := lines(out)
	if err != nil || len(dirs) != 2 {
		t.Fatal(dirs, err)
	}
	return []string{"GOPROXY=file://" + proxy + ",file://" + dirs[0] + "/cache/download", "GOSUMDB=off", "GOMODCACHE=" + dirs[0], "GOCACHE=" + dirs[1], "GOBIN=" + t.TempDir(), "GOTOOLCHAIN=local", "CGO_ENABLED=0", "GOFLAGS=-trimpath"}
}

// zipModule makes a module's zip of what this project keeps
// (go.dev/ref/mod#zip-files).
func zipModule(name, prefix string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	z := zip.NewWriter(f)
	err = filepath.WalkDir("..", func(p string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel("..", p)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (rel == ".git" || rel == ".testenv" || rel == "dist"):
			return filepath.SkipDir
		case !d.Type().IsRegular() || rel == "mlflowfs":
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		w, err := z.Create(prefix + "/" + rel)
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	})
	return errors.Join(err, z.Close())
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
