package fusefs

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs"
)

// A daemon of a test is this program again, with this variable: a mount point, and the
// directory whose files it shows. It talks to the test, which holds the session, over
// descriptor 3.
const testDaemon = "MLFLOWFS_TEST_DAEMON"

// shownFile is a file of a directory on a disk, read with pauses as from a network.
type shownFile struct{ name string }

func (f shownFile) Open(context.Context) (fs.Handle, error) {
	file, err := os.Open(f.name)
	if err != nil {
		return nil, err
	}
	return shownHandle{file}, nil
}

type shownHandle struct{ *os.File }

func (h shownHandle) Identity() string { return h.Name() }
func (h shownHandle) Proof() string    { return h.Name() }
func (h shownHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
	return h.File.ReadAt(p, off)
}

// passedHandle is one that the kernel may read itself.
type passedHandle struct{ shownHandle }

func (h passedHandle) Backing() *os.File { return h.File }

type passedFile struct{ shownFile }

func (f passedFile) Open(ctx context.Context) (fs.Handle, error) {
	h, err := f.shownFile.Open(ctx)
	if err != nil {
		return nil, err
	}
	return passedHandle{h.(shownHandle)}, nil
}

// shownTree shows the files of a directory, and a directory of many.
func shownTree(dir string) *fs.Node {
	var files fixed
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		st, _ := e.Info()
		n := &fs.Node{File: shownFile{filepath.Join(dir, e.Name())}, Size: st.Size(), Mtime: time.Unix(1, 0), TTL: 50 * time.Millisecond}
		if strings.HasPrefix(e.Name(), "passed") {
			n.File = passedFile{n.File.(shownFile)}
		}
		files = append(files, fs.Entry{Name: e.Name(), Node: n})
	}
	return &fs.Node{TTL: 50 * time.Millisecond, Dir: fixed{
		{Name: "files", Node: &fs.Node{Dir: files, TTL: 50 * time.Millisecond}},
		{Name: "many", Node: &fs.Node{Dir: census{1000, 0}, TTL: 50 * time.Millisecond}},
		{Name: "link", Node: &fs.Node{Link: "files", Moves: true, TTL: 50 * time.Millisecond}},
	}}
}

// runTestDaemon is a daemon's life.
func runTestDaemon(arg string) error {
	point, dir, _ := strings.Cut(arg, ":")
	opt := MountOptions{Log: slog.New(slog.DiscardHandler), Scope: "test"}
	_, s, err := receive(3)
	if err != nil {
		return err
	}
	var m *Mounted
	if s.Device == nil {
		m, err = Mount(point, shownTree(dir), opt)
	} else {
		m, err = TakeUp(point, shownTree(dir), s, opt)
	}
	if err != nil {
		return err
	}
	if err := send(3, "up", m.Session()); err != nil {
		return err
	}
	for {
		word, _, err := receive(3)
		switch {
		case err != nil:
			return nil // the test has ended
		case word == "let go":
			if err := m.LetGo(); err != nil {
				return err
			}
			if err := send(3, "gone", Session{}); err != nil {
				return err
			}
		}
	}
}

func send(fd int, word string, s Session) error {
	var rights []byte
	if s.Device != nil {
		rights = unix.UnixRights(int(s.Device.Fd()), int(s.File.Fd()))
	}
	return unix.Sendmsg(fd, []byte(word), rights, nil, 0)
}

func receive(fd int) (word string, s Session, err error) {
	b, rights := make([]byte, 64), make([]byte, unix.CmsgSpace(8))
	n, rn, _, _, err := unix.Recvmsg(fd, b, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		return "", s, fmt.Errorf("the other end is gone: %v", err)
	}
	if rn > 0 {
		messages, err := unix.ParseSocketControlMessage(rights[:rn])
		if err != nil {
			return "", s, err
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			return "", s, err
		}
		s = Session{Device: os.NewFile(uintptr(fds[0]), "/dev/fuse"), File: os.NewFile(uintptr(fds[1]), "session")}
	}
	return string(b[:n]), s, nil
}

// relay is a session that a test holds, and the daemon that answers it.
type relay struct {
	t          *testing.T
	point, dir string
	program    string              // of the daemons
	user       *syscall.Credential // whose they are; nil: this process's
	s          Session
	now        *exec.Cmd
	talk       int // the test's end
}

// begin starts a daemon, which mounts or takes the session up.
func (r *relay) begin() {
	r.t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(ends[1]), "")
	cmd := exec.Command(r.program)
	cmd.Env = append(os.Environ(), testDaemon+"="+r.point+":"+r.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: r.user}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = r.t.Output()
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		r.t.Fatal(err)
	}
	r.now, r.talk = cmd, ends[0]
	if err := send(r.talk, "begin", r.s); err != nil {
		r.t.Fatal(err)
	}
	word, s, err := receive(r.talk)
	if word != "up" {
		r.t.Fatalf("a daemon does not begin: %q, %v", word, err)
	}
	if r.s.Device == nil {
		r.s = s
		return
	}
	s.Close()
}

// kill kills the daemon.
func (r *relay) kill() {
	r.now.Process.Kill()
	r.now.Wait()
	unix.Close(r.talk)
}

// leave has the daemon let go.
func (r *relay) leave() {
	r.t.Helper()
	if err := send(r.talk, "let go", Session{}); err != nil {
		r.t.Fatal(err)
	}
	if word, _, err := receive(r.talk); word != "gone" {
		r.t.Fatalf("the daemon does not let go: %q, %v", word, err)
	}
	old, talk := r.now, r.talk
	r.begin()
	unix.Close(talk)
	old.Wait()
}

// newRelay has a first daemon show three files, of other bytes each.
func newRelay(t *testing.T, user *syscall.Credential) *relay {
	t.Helper()
	dir := t.TempDir()
	seed := rand.NewChaCha8([32]byte{7})
	for _, name := range []string{"a", "b", "passed"} {
		b := make([]byte, 8<<20+5)
		seed.Read(b)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := &relay{t: t, point: t.TempDir(), dir: dir, user: user, program: "/proc/self/exe"}
	if user != nil {
		r.program = filepath.Join(t.TempDir(), "daemon") // /proc/self is not that user's
		run(t, "cp", executable(t), r.program)
		if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(r.point, int(user.Uid), int(user.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	r.begin()
	t.Cleanup(func() {
		r.kill()
		r.s.Close()
		Unmount(r.point, true)
	})
	return r
}

// TestTakeoverUnderReaders fails when a program gets an error, or another byte, or waits for
// long, while the daemons of its mount let go, or are killed, one after the other: one that
// reads a file in whatever way, maps it, has the kernel read it by itself, opens, lists,
// stands in a directory, or waits for more of a file. A user's mount, by fusermount3, does as
// well. (A hundred of each with MLFLOWFS_SOAK.)
func TestTakeoverUnderReaders(t *testing.T) {
	rounds := 8
	if soak() {
		rounds = 100
	}
	if os.Getenv(inOwnPlace) == "" {
		takeovers(t, newRelay(t, nil), rounds)
		node := filepath.Join(t.TempDir(), "fuse")
		run(t, "mknod", "-m", "666", node, "c", "10", "229")
		own := exec.Command("unshare", "-m", "sh", "-c", `mount --bind "$1" /dev/fuse && exec "$2" -test.run '^TestTakeoverUnderReaders$' -test.v`, "sh", node, executable(t))
		own.Env = append(os.Environ(), inOwnPlace+"=1")
		said, err := own.CombinedOutput()
		for line := range strings.Lines(string(said)) {
			if err != nil || strings.Contains(line, "figure: ") {
				t.Log(strings.TrimSpace(line))
			}
		}
		if err != nil {
			t.Error("a user's mount:", err)
		}
		return
	}
	takeovers(t, newRelay(t, &syscall.Credential{Uid: 65534, Gid: 65534}), rounds)
}

// inOwnPlace is set where all may open /dev/fuse, as udev has it.
const inOwnPlace = "MLFLOWFS_TEST_OWN_PLACE"

func executable(t *testing.T) string {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return own
}

func takeovers(t *testing.T, r *relay, rounds int) {
	start := func(c *exec.Cmd) (said *locked, stop io.WriteCloser) {
		said = &locked{}
		c.Stdout, c.Stderr, c.SysProcAttr = said, t.Output(), &syscall.SysProcAttr{Credential: r.user}
		stop, err := c.StdinPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill() })
		return said, stop
	}
	script, err := os.ReadFile("testdata/readers.py")
	if err != nil {
		t.Fatal(err)
	}
	readers := exec.Command("env", "PATH=/usr/bin:/bin:"+os.Getenv("PATH"), "python3", "-c", string(script), r.point, r.dir)
	said, stop := start(readers)
	tail := exec.Command("tail", "-c", "100", "-f", filepath.Join(r.point, "files", "a"))
	last, _ := start(tail)
	for range rounds {
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		r.leave()
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		r.kill()
		r.begin()
	}
	time.Sleep(time.Second)
	io.WriteString(stop, "\n")
	late := time.AfterFunc(time.Minute, func() { readers.Process.Kill() })
	defer late.Stop()
	err = readers.Wait()
	var got struct {
		Errors []string
		Turns  map[string]int
		Pauses map[string]float64
	}
	if jerr := json.Unmarshal([]byte(said.String()), &got); err != nil || jerr != nil {
		t.Fatalf("the readers say %q: %v", said.String(), err)
	}
	for _, e := range got.Errors {
		t.Error(e)
	}
	longest := 0.0
	for name, turns := range got.Turns {
		longest = max(longest, got.Pauses[name])
		if turns < rounds/2 {
			t.Errorf("%s: %d turns", name, turns)
		}
	}
	t.Logf("figure: %d upgrades and %d kills under %d readers: the longest pause is %.2f s", rounds, rounds, len(got.Turns), longest)
	if longest > 2 {
		t.Errorf("a program has waited for %.2f s: %v", longest, got.Pauses)
	}
	tail.Process.Kill()
	tail.Wait()
	whole, err := os.ReadFile(filepath.Join(r.dir, "a"))
	if err != nil || last.String() != string(whole[len(whole)-100:]) {
		t.Errorf("tail -f has said %d bytes, %v", len(last.String()), err)
	}
}
