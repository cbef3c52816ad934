package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// onHost is a server of SSH of a test's own, and what a client there needs: a home
// directory, which is known.
func onHost(t *testing.T) (s *sshd, home, dir string, env []string) {
	t.Helper()
	needsRoot(t, "a server of SSH logs others in")
	home, dir = t.TempDir(), t.TempDir()
	s, err := startSSHD(home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	for d := dir; d != "/"; d = filepath.Dir(d) { // so that others come there
		os.Chmod(d, 0o755)
		if d == os.TempDir() {
			break
		}
	}
	return s, home, dir, append([]string{"HOME=" + home, "MLFLOW_TRACKING_URI=sqlite:///" + home + "/none.db"}, fast...)
}

// writeOld writes a file that was changed a while ago.
func writeOld(t *testing.T, p string, content []byte) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, content, 0o644), os.Chtimes(p, old, old)); err != nil {
		t.Fatal(err)
	}
}

// TestHostShowsWhatItsUserSees fails when a directory of a host, by ls, by download or
// below uri/ of a mount, is not what lies there, whatever its names and however many; when
// a file that the user may not read is, or keeps others from being read; or when a symbolic
// link of the host's is not followed.
func TestHostShowsWhatItsUserSees(t *testing.T) {
	t.Parallel()
	s, _, dir, env := onHost(t)
	tree := filepath.Join(dir, "tree")
	for _, name := range []string{"h#ash", "p%41c", "sp ace", "new\nline", "\xff\xfe", "q?mark", "ü/deep/er", strings.Repeat("n", 255)} {
		writeOld(t, filepath.Join(tree, name), []byte("this is "+name))
	}
	writeOld(t, filepath.Join(tree, "empty"), nil)
	writeOld(t, filepath.Join(tree, "big"), fileBytes(t, 20<<20+17))
	for i := range 10_000 {
		writeOld(t, filepath.Join(tree, "many", fmt.Sprint(i)), nil)
	}
	writeOld(t, filepath.Join(dir, "outside"), []byte("outside"))
	if err := errors.Join(os.Symlink("../outside", filepath.Join(tree, "link")), os.Symlink("ü", filepath.Join(tree, "linked"))); err != nil {
		t.Fatal(err)
	}
	uri := s.uri("nobody", dir)
	dst := t.TempDir()
	if _, err := command(t, env, "download", "--quiet", "--dst", dst, uri+"/tree"); err != nil {
		t.Error(err)
	}
	differ(t, "downloaded", dst+"/tree", tree)
	if out, err := command(t, env, "ls", uri+"/tree/many"); bytes.Count(out, []byte("\n")) != 10_000 || err != nil {
		t.Errorf("%d lines, %v", bytes.Count(out, []byte("\n")), err)
	}
	if _, err := command(t, env, "ls", uri+"/none"); exitOf(err) != 3 {
		t.Errorf("what is not there: %v", err)
	}
	writeOld(t, filepath.Join(tree, "secret"), []byte("secret"))
	os.Chmod(filepath.Join(tree, "secret"), 0o600)
	m := mountAt(t, stranger(t, nil, nil, "").URL, env, "--mount-uris", uri)
	at := m.path(append([]string{"uri", "sftp", "nobody@" + s.addr()}, strings.Split(strings.Trim(dir, "/"), "/")...)...)
	differ(t, "mounted", at+"/tree", tree, "--exclude=secret")
	if b, err := read(at + "/tree/secret"); err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("a file of another user's: %q, %v", b, err)
	}
	if b, err := read(at + "/tree/link"); string(b) != "outside" || err != nil {
		t.Errorf("a link: %q, %v", b, err)
	}
	if n := strings.Count(s.log.String(), "Accepted publickey"); n > 4 {
		t.Errorf("%d connections for three commands and a mount", n)
	}
}

// exitOf is the status with which a command failed.
func exitOf(err error) int {
	var f *failed
	if errors.As(err, &f) {
		return f.code
	}
	return 0
}

func fileBytes(t *testing.T, size int64) []byte {
	t.Helper()
	b, err := os.ReadFile(fileOf(t, size))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHostThatFailsHeals fails when readers of a mount get other bytes than those that lie
// on a host, or an error, while its connections are killed; when a host that is stopped
// keeps them waiting for longer than --timeout; when one that was restarted, or goes on,
// is not read within 5 s; or when a file that is replaced gives bytes of both versions.
func TestHostThatFailsHeals(t *testing.T) {
	t.Parallel()
	s, _, dir, env := onHost(t)
	content := fileBytes(t, 24<<20)
	const files = 6
	for i := range files {
		writeOld(t, fmt.Sprintf("%s/f%d", dir, i), content)
	}
	m := mountRaced(t, stranger(t, nil, nil, "").URL, env, "--mount-uris", s.uri("root", dir), "--timeout", "3s", "--metadata-ttl", "1s", "--stale-if-error", "0s")
	at := func(name string) string {
		return m.path(append([]string{"uri", "sftp", "root@" + s.addr()}, append(strings.Split(strings.Trim(dir, "/"), "/"), name)...)...)
	}
	kill := func() {
		for _, pid := range s.serving() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	var wg sync.WaitGroup
	for i := range files / 2 {
		wg.Go(func() {
			if b, err := read(at(fmt.Sprint("f", i))); !bytes.Equal(b, content) || err != nil {
				t.Errorf("while connections are killed: %d bytes, %v", len(b), err)
			}
		})
	}
	for range 3 {
		time.Sleep(150 * time.Millisecond)
		kill()
	}
	wg.Wait()

	s.stop()
	time.AfterFunc(500*time.Millisecond, func() {
		if err := s.start(); err != nil {
			t.Error(err)
		}
	})
	began := time.Now()
	if b, err := read(at("f3")); !bytes.Equal(b, content) || err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("while it is restarted: %d bytes, %v, after %v", len(b), err, time.Since(began))
	}

	var stopped []int
	for _, pid := range append(s.serving(), s.cmd.Process.Pid) {
		syscall.Kill(pid, syscall.SIGSTOP)
		stopped = append(stopped, pid)
	}
	began = time.Now()
	_, err := read(at("f4"))
	if took := time.Since(began); err == nil || took > 15*time.Second {
		t.Errorf("of a host that is stopped: %v, after %v", err, took)
	}
	for _, pid := range stopped {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	waitFor(t, "a host that goes on is not read", 5*time.Second, func() bool {
		b, err := read(at("f4"))
		return err == nil && bytes.Equal(b, content)
	})

	f, err := os.Open(at("f5"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 1000)
	if _, err := f.Read(head); err != nil || !bytes.Equal(head, content[:1000]) {
		t.Error(err)
	}
	if err := os.WriteFile(dir+"/f5", bytes.Repeat([]byte{'b'}, len(content)), 0o644); err != nil {
		t.Fatal(err)
	}
	bytesOfOne(t, f, content)
	waitFor(t, "a file that was replaced is not shown", 10*time.Second, func() bool {
		b, err := read(at("f5"))
		return err == nil && len(b) == len(content) && b[0] == 'b' && b[len(b)-1] == 'b'
	})
}

// bytesOfOne fails the test when an open file gives bytes of another content than that
// which it had when it was opened.
func bytesOfOne(t *testing.T, f *os.File, content []byte) {
	t.Helper()
	got := make([]byte, len(content))
	n, err := 0, error(nil)
	for n < len(got) && err == nil {
		var k int
		k, err = f.ReadAt(got[n:], int64(n))
		n += k
	}
	if !bytes.Equal(got[:n], content[:n]) {
		t.Errorf("a file that is replaced: %d bytes, some of another version; %v", n, err)
	}
}

// TestHostThatAServerNamesIsNotAsked fails when a host that a tracking server names gets a
// connection of a mount's, of a command's or of doctor's, though no setting names it, be
// the mount for all users or not; when one that is named gets none; when a symbolic link
// leads out of the directory that is named; or when a password of the URI is shown.
func TestHostThatAServerNamesIsNotAsked(t *testing.T) {
	t.Parallel()
	s, home, dir, env := onHost(t)
	writeOld(t, filepath.Join(dir, "runs/f"), []byte("f of the host"))
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "runs/out")); err != nil {
		t.Fatal(err)
	}
	trap, asked := victim(t)
	at := strings.TrimPrefix(trap.URL, "http://")
	uris := map[string]string{
		"plain": "sftp://me:" + planted + "@" + at + "/x", "alias": "sftp://" + at + "/x", "hdfs": "hdfs://" + at + "/x",
		"fool": "sftp://root@" + s.addr() + "@" + at + "/x", "named": s.uri("root", dir+"/runs"),
	}
	server := stranger(t, uris, nil, "")
	env = append(env, "MLFLOW_TRACKING_URI="+server.URL, "MLFLOWFS_ALLOW_STORE="+s.uri("root", dir))
	var said bytes.Buffer
	for id := range uris {
		if id == "named" {
			continue
		}
		for _, args := range [][]string{{"ls", "runs:/" + id}, {"download", "--quiet", "--dst", t.TempDir(), "runs:/" + id}, {"resolve", "runs:/" + id}} {
			out, err := command(t, env, args...)
			fmt.Fprintf(&said, "%s %v\n", out, err)
		}
	}
	command(t, env, "doctor", server.URL)
	for _, flags := range [][]string{nil, {"--allow-other"}} {
		m := mountAt(t, server.URL, env, append(flags, "--log-level", "debug")...)
		for id := range uris {
			output("ls", m.path("runs", id))
		}
		output("cat", m.path(".mlflowfs", "anew", "sftp:", at, "x"))
		if b, err := read(m.path("runs", "named", "f")); string(b) != "f of the host" || err != nil {
			t.Errorf("%q: a host that is named: %q, %v", flags, b, err)
		}
		if out, err := output("ls", m.path("runs", "named")); strings.Contains(string(out), "out") || err != nil {
			t.Errorf("%q: a link that leads out: %s, %v", flags, out, err)
		}
		status, _ := read(m.path(".mlflowfs", "status.json"))
		said.Write(status)
		said.WriteString(m.log.String())
	}
	if asked.Load() > 0 {
		t.Errorf("a host that no setting names got %d connections", asked.Load())
	}
	if !strings.Contains(said.String(), "--allow-store names, such as sftp://me@"+at) || strings.Contains(said.String(), planted) {
		t.Errorf("what is said has the setting: %v; the password: %v", strings.Contains(said.String(), "--allow-store names"), strings.Contains(said.String(), planted))
	}
	command(t, append(env, "HOME="+home), "ls", "sftp://"+at+"/x") // which the user types
	if asked.Load() == 0 {
		t.Error("a host that the user types gets no connection")
	}
}

// TestHostOfARunIsReadAsByTheClient fails when what MLflow's client has logged to a host is
// not what mlflowfs brings, or when a host whose key is not known is asked.
func TestHostOfARunIsReadAsByTheClient(t *testing.T) {
	t.Parallel()
	s, home, dir, env := onHost(t)
	script := fmt.Sprintf(`
import os, mlflow
from mlflow.store.artifact.sftp_artifact_repo import SFTPArtifactRepository
r = SFTPArtifactRepository(%q)
os.makedirs("d/e", exist_ok=True)
for n in ["a#b", "c%%41", "sp ace", "e/deep"]:
    open("d/" + n, "w").write(n)
r.log_artifacts("d", "logged")
r.download_artifacts("logged", %q)
`, s.uri("root", dir), t.TempDir())
	c := exec.Command(release("mlflow3").bin("python"), "-c", script)
	c.Dir, c.Env = home, append(pythonEnv(), "HOME="+home)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, tail(string(out)))
	}
	dst := t.TempDir()
	if _, err := command(t, env, "download", "--quiet", "--dst", dst, s.uri("root", dir)+"/logged"); err != nil {
		t.Error(err)
	}
	differ(t, "what was logged", dst+"/logged", home+"/d")
	if err := os.WriteFile(home+"/.ssh/known_hosts", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := command(t, env, "ls", s.uri("root", dir)); exitOf(err) != 4 || !strings.Contains(err.Error(), "ssh-keyscan -p") {
		t.Errorf("a host that is not known: %v", err)
	}
}
