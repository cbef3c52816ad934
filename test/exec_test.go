package test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestExecIsTheCommand fails when a command of `mlflowfs exec` does not see the mount by
// {} or by $MLFLOWFS; when its standard streams, its arguments, its rights or its open
// files are others than without exec; when somebody else may look into the mount, or a
// password can be seen in the list of processes; or when something is left behind.
func TestExecIsTheCommand(t *testing.T) {
	t.Parallel()
	const size = 3<<20 + 7
	e := newEngineFiles(t, map[string]int{"f": size})
	for i, name := range places {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, name)
			proxy := proxyTo(t, e.URL)
			secret := strings.Replace(proxy.URL, "://", fmt.Sprintf("://me:%s-exec%d@", planted, i), 1)
			given := make([]byte, 100_000)
			rand.NewChaCha8([32]byte{1}).Read(given)
			c := p.exec(t, secret, "sh", "-c", `
read word <&3
printf '%s,' "$@" "$MLFLOWFS" $word
awk '/^Cap/ { printf "%s%s,", $1, $2 }' /proc/self/status
grep -lE `+fmt.Sprintf("%s-[e]xec%d", planted, i)+` /proc/[0-9]*/cmdline 2>/dev/null
echo
cat
cat "$1"
exit 7`, "sh", "{}/runs/"+e.run+"/f", "a b", "", "*", "--flag", "-{}{}-")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, "third\n")
			w.Close()
			defer r.Close()
			var out, errs bytes.Buffer
			c.Stdin, c.Stdout, c.Stderr, c.ExtraFiles = bytes.NewReader(given), &out, &errs, []*os.File{r}
			c.Run()
			if code := codeOf(c.ProcessState); code != 7 || unexpected(errs.String()) != "" {
				t.Fatalf("ends with %d and says %s", code, &errs)
			}
			first, rest, _ := bytes.Cut(out.Bytes(), []byte("\n"))
			f := strings.Split(string(first), ",")
			root := strings.TrimSuffix(f[0], "/runs/"+e.run+"/f")
			if want := []string{f[0], "a b", "", "*", "--flag", "-" + root + root + "-", root, "third"}; !strings.HasPrefix(root, p.tmp+"/") || !slices.Equal(f[:len(want)], want) {
				t.Errorf("the command has %q, and not %q", f, want)
			}
			caps := strings.Join(f[8:], " ")
			if isPrivate(name) && caps != "CapInh:0000000000000000 CapPrm:0000000000000000 CapEff:0000000000000000 CapBnd:0000000000000000 CapAmb:0000000000000000 " {
				t.Errorf("in the namespace it has rights: %s", caps)
			}
			if own, _ := output("awk", `/^Cap/ { printf "%s%s ", $1, $2 }`, "/proc/self/status"); name == asRoot && caps != string(own) {
				t.Errorf("it has %s, and without exec %s", caps, own)
			}
			truth, err := os.ReadFile(filepath.Join(e.dir, "f"))
			if err != nil || !bytes.Equal(rest, append(given, truth...)) {
				t.Errorf("standard output has %d bytes that are not the command's: %v", len(rest), err)
			}
			if n := proxy.Bytes(); n != size {
				t.Errorf("%d bytes were fetched for a file of %d", n, size)
			}
			p.isClean(t)
		})
	}
}

// unexpected are the lines of an error output but for those of a server that is slow, as
// on a busy machine.
func unexpected(errs string) (rest string) {
	for l := range strings.Lines(errs) {
		if !strings.Contains(l, "not answer") {
			rest += l
		}
	}
	return rest
}

// TestExecEndsAsItsCommandEnds fails when the exit code is another than the command's, a
// command that was killed is not told as such, one that can't be run has another code
// than in a shell, or one is started though the mount has failed.
func TestExecEndsAsItsCommandEnds(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "sqlite 3.17")
	refuses := proxyTo(t, shared.get(t, "server 3.17").uri)
	refuses.Break(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}, nil)
	for _, name := range []string{asRoot, withNothing} {
		p := newPlace(t, name)
		script := filepath.Join(p.home, "script")
		if err := os.WriteFile(script, []byte("exit 9\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			uri     string
			command []string
			code    int
			signal  syscall.Signal // by which exec itself ends
			says    string
		}{
			{s.uri, []string{"true"}, 0, 0, ""},
			{s.uri, []string{"sh", "-c", "exit 255"}, 255, 0, ""},
			{s.uri, []string{"sh", "-c", "kill -TERM $$"}, 143, syscall.SIGTERM, ""},
			{s.uri, []string{"sh", "-c", "kill -QUIT $$"}, 131, syscall.SIGQUIT, ""},
			{s.uri, []string{"sh", "-c", "kill -KILL $$"}, 137, syscall.SIGKILL, ""},
			{s.uri, []string{"sh", "-c", "kill -SEGV $$"}, 139, syscall.SIGSEGV, ""},
			{s.uri, []string{script}, 9, 0, ""}, // it has no #!
			{s.uri, []string{"no-such-command"}, 127, 0, "no-such-command: command not found"},
			{s.uri, []string{"{}/nothing"}, 127, 0, "no such file"},
			{s.uri, []string{"/"}, 126, 0, "directory"},
			{s.uri, []string{"{}/models/echo/1/MLmodel"}, 126, 0, "permission denied"},
			{refuses.URL, []string{"echo", "started"}, 4, 0, "refuses the credentials"},
			{s.uri, []string{"--metadata-ttl=0s", "echo", "started"}, 2, 0, "--metadata-ttl"},
			{s.uri, []string{"--metadata-ttl=1s", "echo", "--metadata-ttl=0s", "--"}, 0, 0, ""},
			{s.uri, []string{"--", "--"}, 127, 0, "--: command not found"},
			{s.uri, []string{"--"}, 2, 0, "takes a command"},
		} {
			if c.uri == s.uri && name == withNothing {
				os.Chmod(filepath.Dir(strings.TrimPrefix(s.uri, "sqlite:///")), 0o755)
			}
			cmd := p.exec(t, c.uri, c.command...)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			cmd.Run()
			st := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if codeOf(cmd.ProcessState) != c.code || st.Signaled() != (c.signal != 0) || strings.Contains(out.String(), "started") {
				t.Errorf("%s: %q ends with %v, and says %s%s", name, c.command, cmd.ProcessState, &out, &errs)
			}
			if said := unexpected(errs.String()); c.says == "" && said != "" || !strings.Contains(said, c.says) || strings.Count(said, "\n") > 1 {
				t.Errorf("%s: %q says %q, and not %q", name, c.command, said, c.says)
			}
		}
		p.isClean(t)
	}
}

// TestExecWaitsForWhoStillReads fails when a process that a command leaves behind loses a
// file that it has open, when exec ends before it, or when one that uses nothing of the
// mount keeps exec.
func TestExecWaitsForWhoStillReads(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	want := sumOf(t, filepath.Join(e.dir, "f"))
	for _, name := range []string{asRoot, withSetuid, withNothing} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, name)
			result := filepath.Join(p.home, "result")
			r := p.start(t, e.URL, "sh", "-c", `(cd /; exec <"$0"; sleep 4; sha256sum >"$1.new"; mv "$1.new" "$1") >/dev/null 2>&1 & sleep 1; echo up`, "{}/runs/"+e.run+"/f", result)
			r.line(t)
			if code := r.ends(t); code != 0 || !strings.HasPrefix(readFile(result), want) {
				t.Errorf("ends with %d; %s; who still read has %q", code, r.errs.String(), readFile(result))
			}
			p.isClean(t)

			r = p.start(t, e.URL, "sh", "-c", `(cd /; sleep 1000 <&-) >/dev/null 2>&1 & echo $!`)
			sleeper := r.line(t)
			begin := time.Now()
			if code := r.ends(t); code != 0 || time.Since(begin) > 5*time.Second {
				t.Errorf("a process that uses nothing of the mount: ends with %d after %v", code, time.Since(begin))
			}
			output("pkill", "-KILL", "-P", sleeper)
			output("kill", "-KILL", sleeper)
			p.isClean(t)

			// A signal ends the wait.
			r = p.start(t, e.URL, "sh", "-c", `sleep 1000 <"$0" >/dev/null 2>&1 & echo $!`, "{}/runs/"+e.run+"/f")
			sleeper = r.line(t)
			waitFor(t, "the mount is not detached", long, func() bool { return !p.isMounted() })
			r.Process.Signal(syscall.SIGTERM)
			if code := r.ends(t); code != 0 {
				t.Errorf("after a signal in the end it ends with %d", code)
			}
			output("kill", "-KILL", sleeper)
			p.isClean(t)
		})
	}
}

// TestExecsShareTheCache fails when twenty execs beside each other, as in an array of
// jobs, disturb each other, or fetch what one of them has fetched before.
func TestExecsShareTheCache(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	e := newEngineFiles(t, map[string]int{"f": size})
	want := sumOf(t, filepath.Join(e.dir, "f"))
	p := newPlace(t, withNothing)
	sum := func() (string, error) {
		out, err := p.exec(t, e.URL, "sha256sum", "{}/runs/"+e.run+"/f").Output()
		return string(out), err
	}
	if out, err := sum(); err != nil || !strings.HasPrefix(out, want) {
		t.Fatal(out, err)
	}
	if n := e.Bytes(); n != size {
		t.Errorf("%d bytes were fetched for a file of %d", n, size)
	}
	var wg sync.WaitGroup
	begin := time.Now()
	for range 20 {
		wg.Go(func() {
			if out, err := sum(); err != nil || !strings.HasPrefix(out, want) {
				t.Error(out, err)
			}
		})
	}
	wg.Wait()
	figure(t, "20 execs beside each other: %v", time.Since(begin).Round(time.Millisecond))
	if n := e.Bytes(); n != size {
		t.Errorf("twenty more have fetched %d bytes", n-size)
	}
	p.isClean(t)
}

// TestExecSaysWhatIsMissing fails when exec, where nothing can be mounted, does not say in
// a sentence what to do, or starts the command.
func TestExecSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it makes namespaces")
	s := shared.get(t, "sqlite 3.17")
	refuses(t, 2, nil, []string{"exec"}, "takes a command", "mlflowfs exec [flags] -- COMMAND")
	// The limit is of a user namespace, so that one of the test's own has its own.
	closed := &place{name: "closed", become: []string{"unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
		`mount --bind /dev/fuse /dev/fuse && echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -sys_admin "$@"`, "sh"}, tmp: t.TempDir(), home: t.TempDir()}
	bare := &place{name: "bare", tmp: t.TempDir(), home: t.TempDir()}
	bare.keep(t, "bare")
	for p, says := range map[*place][]string{
		closed: {"nothing can be mounted here: ", "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=", "--cap-add SYS_ADMIN"},
		bare:   {"/dev/fuse is missing", "--device /dev/fuse"},
	} {
		out, err := p.exec(t, s.uri, "echo", "started").CombinedOutput()
		if err == nil || bytes.Contains(out, []byte("started")) || bytes.Count(out, []byte("\n")) != 1 {
			t.Errorf("%s: %s%v", p.name, out, err)
		}
		for _, w := range says {
			if !bytes.Contains(out, []byte(w)) {
				t.Errorf("%s: %q is not in %s", p.name, w, out)
			}
		}
	}
}
