package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
)

// TestTakeoverRefusesWhatIsNotItsOwn fails when a session that is damaged, that is of a mount
// with other settings, or that is none at all, is taken up; or when the daemon that let go of
// one can't go on with it then.
func TestTakeoverRefusesWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	root, opt := &fs.Node{Dir: census{20, 0}, TTL: time.Hour}, MountOptions{Log: slog.New(slog.DiscardHandler), Scope: "mine"}
	point, m := mounted(t, root, opt)
	h := hold(t, point, m)
	if got := find(t, point, tiny...); got != 20 {
		t.Fatalf("%d files", got)
	}
	h.letGo(t)
	refused := func(what string, s Session, opt MountOptions, want error) {
		t.Helper()
		if m, err := TakeUp(point, root, s, opt); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
			if err == nil {
				m.LetGo()
			}
		}
	}
	other := opt
	other.Scope = "another's"
	refused("another's", h.s, other, sessionfile.ErrForeign)
	if err := CheckSession(h.s, other); !errors.Is(err, sessionfile.ErrForeign) {
		t.Error(err)
	}
	none, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	refused("nothing", Session{h.s.Device, none}, opt, sessionfile.ErrDamaged)
	name := whereIs(t, h.s.File, "000007")
	for _, at := range []int64{0, 9, name, name - 60} {
		was := readAt(t, h.s.File, make([]byte, 1), at)[0]
		write := func(b byte) {
			if _, err := h.s.File.WriteAt([]byte{b}, at); err != nil {
				t.Fatal(err)
			}
		}
		write(was ^ 4)
		if m, err := TakeUp(point, root, h.s, opt); !errors.Is(err, sessionfile.ErrDamaged) && !errors.Is(err, sessionfile.ErrVersion) {
			t.Errorf("byte %d has changed: %v", at, err)
			if err == nil {
				m.LetGo()
			}
		}
		write(was)
	}
	h.takeUp(t, root, opt)
	if got := find(t, point, tiny...); got != 20 {
		t.Errorf("%d files are there in the end", got)
	}
}

// whereIs is where text stands in a file that is mostly holes.
func whereIs(t *testing.T, f *os.File, text string) int64 {
	t.Helper()
	b := make([]byte, 4096)
	for off := int64(0); ; off += int64(len(b)) {
		var err error
		if off, err = f.Seek(off, unix.SEEK_DATA); err != nil {
			t.Fatalf("it has no %q: %v", text, err)
		}
		if at := bytes.Index(readAt(t, f, b, off), []byte(text)); at >= 0 {
			return off + int64(at)
		}
	}
}

func readAt(t *testing.T, f *os.File, b []byte, at int64) []byte {
	t.Helper()
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	return b
}

// failing is a directory that can't be asked while it fails.
type failing struct {
	fixed
	fails atomic.Bool
}

func (d *failing) Lookup(ctx context.Context, name string) (*fs.Node, error) {
	if d.fails.Load() {
		return nil, errRoll
	}
	return d.fixed.Lookup(ctx, name)
}

// TestTakeoverInAnOutage fails when a program can't have the size of a file that it has open,
// or the bytes of it that the kernel has, since the server can't be asked when another daemon
// takes the mount up; or when it can't read on when the server is back; or when another file's
// bytes come, because it was replaced meanwhile.
func TestTakeoverInAnOutage(t *testing.T) {
	t.Parallel()
	d := &failing{fixed: fixed{{Name: "f", Node: sized("content")}, {Name: "g", Node: &fs.Node{File: text("one"), Size: 3}}}}
	root, opt := &fs.Node{Dir: d}, MountOptions{Log: slog.New(slog.DiscardHandler)}
	point, m := mounted(t, root, opt)
	h := hold(t, point, m)
	say := shell(t, t.TempDir())
	for fd, name := range []string{"f", "f", "g"} {
		say(fmt.Sprintf("exec %d<%s", fd+3, filepath.Join(point, name)))
	}
	if got := say("head -c1 <&5"); got != "o" {
		t.Fatalf("%q", got)
	}
	d.fails.Store(true)
	h.letGo(t)
	h.takeUp(t, root, opt)
	if got := say("stat -Lc %s /dev/fd/3"); got != "7" {
		t.Errorf("the size of the open file is %q", got)
	}
	if got := say("cat <&3 2>/dev/null || echo failed"); got != "failed" {
		t.Errorf("what the kernel does not have reads as %q", got)
	}
	d.fixed[1].Node = &fs.Node{File: text("two"), Size: 3} // which nothing tells from the other but its bytes
	d.fails.Store(false)
	if got := say("cat <&3"); got != "content" {
		t.Errorf("when the server is back it reads %q", got)
	}
	if got := say("cat <&5 2>/dev/null || echo failed"); got != "ne" && got != "failed" {
		t.Errorf("the file that was replaced reads on as %q", got)
	}
}
