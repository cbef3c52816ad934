package fusefs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// started starts a program, which ends with the test, and gives its standard input and
// output.
func started(t *testing.T, name string, args ...string) (in io.Writer, out *bufio.Reader) {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Stderr = t.Output()
	in, ierr := c.StdinPipe()
	said, oerr := c.StdoutPipe()
	if err := errors.Join(ierr, oerr, c.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Wait() }) // the end of the test's context kills it
	return in, bufio.NewReader(said)
}

// shell starts a process that runs commands in dir. The function returns what a command
// says.
func shell(t *testing.T, dir string) func(command string) string {
	t.Helper()
	in, lines := started(t, "sh", "-c", `cd "$1" && while read -r line; do eval "$line" 2>&1; echo; echo over; done`, "sh", dir)
	return func(command string) string {
		t.Helper()
		if _, err := fmt.Fprintln(in, command); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if line == "over\n" {
				return strings.TrimSpace(said.String())
			}
			said.WriteString(line)
		}
	}
}

// settledDir is a directory that says that its entries change no more, and lets somebody
// change them.
type settledDir struct {
	mu    sync.Mutex // guards names
	names []string
	ttl   time.Duration
}

func (d *settledDir) Settled() bool { return true }

func (d *settledDir) Lookup(_ context.Context, name string) (*fs.Node, error) {
	if name == "d" {
		return &fs.Node{Dir: d, TTL: d.ttl}, nil
	}
	return sized(name), nil
}

func (d *settledDir) List(context.Context) (fs.Listing, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out entries
	for _, name := range d.names {
		out = append(out, fs.Entry{Name: name, Node: sized(name)})
	}
	return &out, nil
}

// TestSettledDirectoryIsListedAnew fails when the kernel lists a directory from its
// memory for longer than it may believe the directory: an artifact that is added to an
// ended run is never listed.
func TestSettledDirectoryIsListedAnew(t *testing.T) {
	t.Parallel()
	d := &settledDir{names: []string{"a"}, ttl: time.Second}
	point, _ := mounted(t, &fs.Node{Dir: d}, MountOptions{})
	dir := filepath.Join(point, "d")
	if got := run(t, "ls", dir); got != "a\n" {
		t.Errorf("it lists %q", got)
	}
	run(t, "ls", dir)
	c := exec.CommandContext(t.Context(), "python3", "-c", `
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print(os.listdir(fd), flush=True)
sys.stdin.readline()
print(os.listdir(fd))`, dir)
	in, ierr := c.StdinPipe()
	var stays locked
	c.Stdout, c.Stderr = &stays, t.Output()
	if err := errors.Join(ierr, c.Start()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is open", func() bool { return stays.String() == "['a']\n" })
	d.mu.Lock()
	d.names = append(d.names, "b")
	d.mu.Unlock()
	time.Sleep(2*d.ttl + 100*time.Millisecond)
	in.Close()
	if err := c.Wait(); err != nil || stays.String() != "['a']\n['a', 'b']\n" {
		t.Errorf("one who has it open lists %q, %v", stays.String(), err)
	}
	if got := run(t, "ls", dir); got != "a\nb\n" {
		t.Errorf("after its time, it lists %q", got)
	}
}

// diary is a tracking server with one run, which logs on.
type diary struct {
	meta.Store // nil: nothing else is asked for
	step       atomic.Int64
}

func (d *diary) SearchExperiments(context.Context, string, string) (meta.Page[meta.Experiment], error) {
	return meta.Page[meta.Experiment]{Items: []meta.Experiment{{ID: "1", Name: "e"}}}, nil
}

func (d *diary) run() *meta.Run {
	n := d.step.Load()
	data := map[string]any{
		"params":  []meta.Pair{{Key: fmt.Sprint("p", n), Value: "x"}},
		"tags":    []meta.Pair{{Key: "step", Value: fmt.Sprint(n)}},
		"metrics": []map[string]any{{"key": fmt.Sprint("m", n), "value": 0.5, "timestamp": n, "step": 1}},
	}
	r := &meta.Run{ID: strings.Repeat("1", 32), Name: "r", ExperimentID: "1", Status: "RUNNING", Start: time.UnixMilli(2e12)}
	r.JSON, _ = json.Marshal(map[string]any{"data": data})
	return r
}

func (d *diary) Run(context.Context, string) (*meta.Run, error) { return d.run(), nil }

func (d *diary) SearchRuns(context.Context, meta.RunQuery, string) (meta.Page[meta.Run], error) {
	return meta.Page[meta.Run]{Items: []meta.Run{*d.run()}}, nil
}

// TestProgramInADirectorySeesWhatIsNew fails when a program that stands in a directory of
// a run, whose name is never looked up again then, sees for ever what had been logged
// when it went there.
func TestProgramInADirectorySeesWhatIsNew(t *testing.T) {
	t.Parallel()
	d := &diary{}
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	c := cache.New(cache.Options{TempDir: t.TempDir()})
	const ttl = 100 * time.Millisecond
	root, err := fs.New(fs.Options{Resolver: resolve.New(resolve.Options{Tracking: d, Cache: c, Log: logger, TTL: ttl}), Cache: c, Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	point, _ := mounted(t, root, MountOptions{})
	for dir, ask := range map[string][2]string{ // a command, and what it says
		"params":  {"ls", "p%d"},
		"tags":    {"cat step", "%d"},
		"metrics": {"ls", "m%d.csv"},
		"":        {"cat tags/step", "%d"},
	} {
		say := shell(t, filepath.Join(point, "experiments/e/r", dir))
		for range 2 {
			if got, want := say(ask[0]), fmt.Sprintf(ask[1], d.step.Load()); got != want {
				t.Errorf("%s in %q says %q, and not %q", ask[0], dir, got, want)
			}
			d.step.Add(1)
			time.Sleep(5 * ttl)
		}
	}
}

// under is a directory with one other in it, d.
type under struct{ dir fs.Dir }

func (u under) Lookup(context.Context, string) (*fs.Node, error) {
	return &fs.Node{Dir: u.dir, TTL: time.Hour}, nil
}

func (u under) List(context.Context) (fs.Listing, error) { return &entries{}, nil }

// watching has a process watch a file by inotify until the test ends, and says when it
// does.
func watching(t *testing.T, name string) {
	t.Helper()
	_, out := started(t, "python3", "-c", `
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
assert libc.inotify_add_watch(libc.inotify_init(), os.fsencode(sys.argv[1]), 0x400) > 0
print("there", flush=True)
time.sleep(600)`, name)
	if _, err := io.ReadFull(out, make([]byte, len("there"))); err != nil {
		t.Fatal(err)
	}
}

// TestNoLookUpGivesWhatIsOutdated fails when a name leads to an inode whose content is
// known to have changed, and so can't be opened: the kernel keeps that, since a program
// watches it, and has forgotten the directory.
func TestNoLookUpGivesWhatIsOutdated(t *testing.T) {
	t.Parallel()
	p := &page{content: 'a'}
	point, m := mounted(t, &fs.Node{Dir: under{p}}, MountOptions{Log: slog.New(slog.DiscardHandler)})
	file := filepath.Join(point, "d", "f")
	count := func() string { return run(t, "sh", "-c", `tr -d '\n' <"$1" | head -c 1`, "sh", file) }
	say := shell(t, t.TempDir())
	say("exec 3<" + file)
	watching(t, file)
	p.become('b')
	if got := count(); got != "b" {
		t.Errorf("it reads %q beside an old one", got)
	}
	say("exec 3<&-")
	eventually(t, "the kernel knows no more than the file that is watched", func() bool {
		n := m.a.names
		var all []uint64
		told := 0 // those that are there for more than what is in them
		n.mu.RLock()
		n.rows.All(func(r sessionfile.Row) bool {
			all = append(all, n.rows.Number(r))
			if l := n.rows.Lookups(r); l > 1 || l == 1 && !n.rows.Get(r).Dir {
				told++
			}
			return true
		})
		n.mu.RUnlock()
		n.ask(m.a.session, all)
		return told <= 1
	})
	if got := count(); got != "b" {
		t.Errorf("it reads %q when its directory had been forgotten", got)
	}
}

// sign is a directory with a link, l, that moves.
type sign struct {
	mu    sync.Mutex // guards what follows
	to    string
	asked func() // once, by whoever is the first to see where it leads now
}

func (d *sign) Lookup(context.Context, string) (*fs.Node, error) {
	d.mu.Lock()
	n, asked := &fs.Node{Link: d.to, Moves: true, TTL: 50 * time.Millisecond}, d.asked
	d.asked = nil
	d.mu.Unlock()
	if asked != nil {
		asked()
	}
	return n, nil
}

func (d *sign) List(context.Context) (fs.Listing, error) { return &entries{}, nil }

func (d *sign) move(to string, asked func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.to, d.asked = to, asked
}

// follower starts a process that watches a link, and reads it as soon as it hears that it
// has moved. The function waits for what it reads then.
func follower(t *testing.T, link string) func() string {
	t.Helper()
	_, lines := started(t, "python3", "-c", `
import ctypes, os, sys
libc = ctypes.CDLL(None)
fd = libc.inotify_init()
assert libc.inotify_add_watch(fd, os.fsencode(sys.argv[1]), 0x02000400) > 0 # IN_DONT_FOLLOW|IN_DELETE_SELF
print("there", flush=True)
os.read(fd, 4096)
print(os.readlink(sys.argv[1]), flush=True)`, link)
	next := func() string {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(line)
	}
	if got := next(); got != "there" {
		t.Fatal(got)
	}
	return next
}

// TestLinkThatHasMovedIsReadAnew fails when a program that hears of a link's move, and
// reads it at once, is still given where it led before.
func TestLinkThatHasMovedIsReadAnew(t *testing.T) {
	t.Parallel()
	d := &sign{to: "old"}
	point, m := mounted(t, &fs.Node{Dir: d}, MountOptions{})
	reads := follower(t, filepath.Join(point, "l"))
	d.move("new", func() { // the one who tells of it does not get done with that
		m.a.links.mu.Lock()
		time.AfterFunc(time.Second, m.a.links.mu.Unlock)
	})
	if got := reads(); got != "new" {
		t.Errorf("it leads to %q", got)
	}
}

// shaky is a directory with one other in it, which can't be had for a while.
type shaky struct {
	under
	fails atomic.Bool
}

func (d *shaky) Lookup(ctx context.Context, name string) (*fs.Node, error) {
	if d.fails.Load() {
		return nil, errors.New("the server has gone")
	}
	return &fs.Node{Dir: d.dir, TTL: 10 * time.Millisecond}, nil
}

// TestMoveIsToldInTheEnd fails when a program never hears of a link's move, since the
// server could not be asked for the link's directory when it was to be told.
func TestMoveIsToldInTheEnd(t *testing.T) {
	t.Parallel()
	d := &sign{to: "old"}
	above := &shaky{under: under{d}}
	point, _ := mounted(t, &fs.Node{Dir: above}, MountOptions{Log: slog.New(slog.DiscardHandler)})
	reads := follower(t, filepath.Join(point, "d", "l"))
	d.move("new", func() {
		above.fails.Store(true)
		time.AfterFunc(500*time.Millisecond, func() { above.fails.Store(false) })
	})
	heard := make(chan string, 1)
	go func() { heard <- reads() }()
	select {
	case got := <-heard:
		if got != "new" {
			t.Errorf("it leads to %q", got)
		}
	case <-time.After(time.Minute):
		t.Error("it is not told")
	}
}

// TestTableThatHasGrownIsNotTakenForWhole fails when a program that relies on the size of
// a table's name, as Python's tarfile does, takes a part of the table for the whole of
// it: its first page is as it was when the table was made last, and the rest has grown.
func TestTableThatHasGrownIsNotTakenForWhole(t *testing.T) {
	t.Parallel()
	l := &ledger{n: 1_999}
	logger := slog.New(slog.DiscardHandler)
	c := cache.New(cache.Options{TempDir: t.TempDir()})
	const ttl = 200 * time.Millisecond
	root, err := fs.New(fs.Options{Resolver: resolve.New(resolve.Options{Tracking: l, Cache: c, Log: logger, TTL: ttl}), Cache: c, Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	point, _ := mounted(t, root, MountOptions{Log: logger})
	table := filepath.Join(point, "experiments", "big", "runs.csv")
	before := len(run(t, "cat", table))
	l.more.Store(401)
	time.Sleep(2 * ttl)
	out, err := exec.CommandContext(t.Context(), "python3", "-c", `
import sys, tarfile
f = tarfile.open("/dev/null", "w")
f.add(sys.argv[1])
print(f.getmembers()[0].size)`, table).CombinedOutput()
	if err == nil {
		t.Errorf("it is taken for one of %s bytes; it had %d, and has %d", out, before, len(run(t, "cat", table)))
	}
}
