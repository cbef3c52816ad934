package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

// sockets are the two ends of a holder's socket.
func sockets(t *testing.T) (a, b *control) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := [2]*control{}
	for i := range ends {
		if ends[i], err = newControl(os.NewFile(uintptr(pair[i]), "end")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(ends[i].close)
	}
	return ends[0], ends[1]
}

// openFiles is how many descriptors this process has open.
func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// newSession is a session of files that are none of the kernel's.
func newSession(t *testing.T) fusefs.Session {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fusefs.Session{Device: r, File: w}.Close() })
	return fusefs.Session{Device: r, File: w}
}

// TestMessagesBringASession fails when a message loses what it says, or its descriptors, or
// when what is no message is taken for one, or leaves descriptors open.
func TestMessagesBringASession(t *testing.T) {
	a, b := sockets(t)
	s := newSession(t)
	if err := a.send(message{Kind: hasMounted, Point: "/mnt/ö", session: s}); err != nil {
		t.Fatal(err)
	}
	m, err := b.receive()
	if err != nil || m.Kind != hasMounted || m.Point != "/mnt/ö" || m.session.Device == nil || m.session.File == nil {
		t.Fatalf("%+v, %v", m, err)
	}
	m.session.File.WriteString("x")
	m.session.Close()
	if n, err := s.Device.Read(make([]byte, 1)); n != 1 {
		t.Error("the files are others:", err)
	}
	before := openFiles(t)
	for what, send := range map[string]func(){
		"files without a use": func() { a.send(message{Kind: hasWords, session: s}) },
		"no JSON":             func() { a.conn.WriteMsgUnix([]byte("READY=1"), unix.UnixRights(int(s.File.Fd())), nil) },
		"too long":            func() { a.conn.Write([]byte(`{"kind":"` + strings.Repeat("x", packetSize) + `"}`)) },
		"too many files": func() {
			a.conn.WriteMsgUnix([]byte(`{"kind":"mounted"}`), unix.UnixRights(1, 2, 1, 2, 1, 2), nil)
		},
		"an empty packet": func() { a.conn.Write(nil) },
	} {
		send()
		if m, err := b.receive(); err == nil {
			t.Errorf("%s: is taken for %+v", what, m)
		}
		if now := openFiles(t); now != before {
			t.Errorf("%s: %d files are open, and not %d", what, now, before)
		}
	}
	a.conn.Write([]byte(`{"kind":"notify","words":"READY=1","of a later version":[1]}`))
	if m, err := b.receive(); err != nil || m.Words != "READY=1" {
		t.Errorf("%+v, %v", m, err)
	}
	if err := a.send(message{Kind: hasWords, Words: strings.Repeat("x", packetSize)}); err == nil {
		t.Error("a message is longer than one may be")
	}
	for err = nil; err == nil; { // nobody listens
		err = a.send(message{Kind: hasWords, Words: strings.Repeat("x", packetSize/2)})
	}
	b.send(message{Kind: hasEnded, Code: 3})
	b.close() // without having read all
	if m, err := a.receive(); err != nil || m.Code != 3 {
		t.Errorf("its last word is lost: %+v, %v", m, err)
	}
	if _, err := a.receive(); !errors.Is(err, io.EOF) {
		t.Error("the other side has ended:", err)
	}
}

// fakeDaemon is a child of a holder that a test speaks for.
type fakeDaemon struct {
	*child
	theirs *control
	ended  chan struct{}
}

func newFakeDaemon(t *testing.T, to task) *fakeDaemon {
	t.Helper()
	ours, theirs := sockets(t)
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f := &fakeDaemon{child: &child{control: ours, process: cmd.Process, task: to, serving: to == toMount}, theirs: theirs, ended: make(chan struct{})}
	go func() {
		cmd.Process.Wait()
		close(f.ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-f.ended
	})
	return f
}

// told are the kinds of the messages that it was sent, until none comes.
func (f *fakeDaemon) told(t *testing.T) (kinds []kind) {
	t.Helper()
	for {
		f.theirs.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		m, err := f.theirs.receive()
		if err != nil {
			return kinds
		}
		if m.session.Close(); m.Kind == doTakeUp && m.session.File == nil {
			t.Error("it is to take up no session")
		}
		kinds = append(kinds, m.Kind)
	}
}

func (f *fakeDaemon) isKilled() bool {
	select {
	case <-f.ended:
		return true
	case <-time.After(200 * time.Millisecond):
		return false
	}
}

// TestUpgradeGoesBack fails when an upgrade in which a daemon fails, dies, is late or ends
// at any step leaves a mount that nobody answers, or that two do, or when its end is not told.
func TestUpgradeGoesBack(t *testing.T) {
	steps := []struct { // until it fails
		who  string
		says kind
	}{{"next", hasProven}, {"now", hasLetGo}, {"next", hasServing}}
	for _, c := range []struct {
		name  string
		steps int // that are taken
		then  string
		now   []kind // what the daemon before is told
		next  []kind
		why   string
	}{
		{"it goes well", 3, "", []kind{doLetGo, doLeave}, []kind{doTakeUp, doTell}, ""},
		{"the next one can't", 0, "next fails", []kind{doTell}, nil, "no cache"},
		{"the next one dies", 0, "next dies", []kind{doTell}, nil, "has ended"},
		{"the next one hangs", 0, "late", []kind{doTell}, nil, "not ready"},
		{"the mount is to end", 0, "end", []kind{doTell, doEnd}, nil, "ended"},
		{"the daemon does not let go", 1, "late", []kind{doLetGo, doTell}, nil, "let go"},
		{"the daemon can't let go", 1, "now fails", []kind{doLetGo, doTell}, nil, "no cache"},
		{"the next one dies before it may", 1, "next dies", []kind{doLetGo, doTell}, nil, "has ended"},
		{"the daemon lets go too late", 1, "late, then let go", []kind{doLetGo, doTell, doTakeUp}, nil, "let go"},
		{"the next one can't take it up", 2, "next fails, next dies", []kind{doLetGo, doTell, doTakeUp}, []kind{doTakeUp}, "no cache"},
		{"the next one dies of it", 2, "next dies", []kind{doLetGo, doTell, doTakeUp}, []kind{doTakeUp}, "has ended"},
		{"the next one hangs in it", 2, "late, next dies", []kind{doLetGo, doTell, doTakeUp}, []kind{doTakeUp}, "did not answer"},
		{"the next one comes too late", 2, "late, next serves, next dies", []kind{doLetGo, doTell, doTakeUp}, []kind{doTakeUp}, "did not answer"},
		{"the mount is to end late", 2, "end, next serves", []kind{doLetGo, doLeave}, []kind{doTakeUp, doTell, doEnd}, ""},
		{"the mount is to end, and the next one dies", 2, "end, next dies, now serves", []kind{doLetGo, doTell, doTakeUp, doEnd}, []kind{doTakeUp}, "has ended"},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, next := newFakeDaemon(t, toMount), newFakeDaemon(t, toProve)
			h := &holder{session: newSession(t), point: "/nowhere", now: now.child, lines: newLogWriter(io.Discard, func(int64) {})}
			u := &h.upgrade
			u.next = next.child
			u.begin(proving, proveWithin)
			who := map[string]*fakeDaemon{"now": now, "next": next}
			for _, s := range steps[:c.steps] {
				h.heard(who[s.who].child, message{Kind: s.says})
			}
			for what := range strings.SplitSeq(c.then, ", ") {
				switch what {
				case "next fails":
					h.heard(next.child, message{Kind: hasFailed, Error: "no cache", Refuse: true})
				case "now fails":
					h.heard(now.child, message{Kind: hasFailed, Error: "no cache"})
				case "next dies":
					next.process.Kill()
					<-next.ended
					next.dead, next.how = true, "killed"
					h.died(next.child)
				case "next serves":
					h.heard(next.child, message{Kind: hasServing})
				case "now serves":
					h.heard(now.child, message{Kind: hasServing})
				case "late", "then let go":
					u.until = time.Now().Add(-time.Second)
					if what == "late" {
						u.late(h)
					} else {
						h.heard(now.child, message{Kind: hasLetGo})
					}
				case "end":
					h.end()
				}
			}
			if got := now.told(t); !slices.Equal(got, c.now) {
				t.Errorf("the daemon before is told %q, and not %q", got, c.now)
			}
			if got := next.told(t); !slices.Equal(got, c.next) {
				t.Errorf("the next one is told %q, and not %q", got, c.next)
			}
			if u.last == nil || !strings.Contains(u.last.Error, c.why) || (c.why == "") != (u.last.Error == "") {
				t.Errorf("it is said to have gone so: %+v", u.last)
			}
			if h.now != now.child != (c.why == "") {
				t.Error("the wrong one answers")
			}
			if killed := next.isKilled(); killed != (c.why != "") || now.isKilled() {
				t.Errorf("the next one is killed: %v; the one before: %v", killed, now.isKilled())
			}
		})
	}
}
