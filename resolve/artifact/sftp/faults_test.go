package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
)

// TestConnectionHeals fails when a connection that is cut in the middle of a read, or a
// server that was restarted, is not read again within 5 s, or when a body that was cut is
// taken for a whole one.
func TestConnectionHeals(t *testing.T) {
	t.Parallel()
	s, h := ready(t)
	dir := t.TempDir()
	content := strings.Repeat("0123456789", 800<<10)
	fileWith(t, dir, "f", content)
	r := h.store(h.driver(), s.authority(), dir)
	body, err := r.ReadRange(t.Context(), "f", 0, int64(len(content)), "")
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(body, make([]byte, 100))
	s.cut()
	if rest, err := io.ReadAll(body); err == nil || len(rest) >= len(content)-100 {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
	body.Close()
	if got, _, err := read(t, r, "f", 0, 10, body.Validator); got != content[:10] || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	s.stop()
	time.AfterFunc(500*time.Millisecond, func() { s.start(t) })
	began := time.Now()
	if got, _, err := read(t, r, "f", 10, 10, body.Validator); got != content[10:20] || err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("%q, %v, after %v", got, err, time.Since(began))
	}
}

// TestSilentHostIsLeft fails when a host that takes requests and answers none, be it at
// once or in the middle, is waited for longer than the settings say, or when one that
// answers again is not asked.
func TestSilentHostIsLeft(t *testing.T) {
	t.Parallel()
	s, h := ready(t)
	dir := t.TempDir()
	fileWith(t, dir, "f", strings.Repeat("x", 4<<20))
	d := h.driver()
	d.Settings.Silence = 300 * time.Millisecond
	r := h.store(d, s.authority(), dir)
	_, version, err := read(t, r, "f", 0, 10, "")
	if err != nil {
		t.Fatal(err)
	}
	silent := func(what string, err error) {
		t.Helper()
		var to interface{ Timeout() bool }
		if !errors.As(err, &to) || !to.Timeout() || !strings.Contains(err.Error(), "no answer for") {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.deaf.Store(true)
	began := time.Now()
	_, _, err = read(t, r, "f", 100, 1<<20, version)
	silent("a read", err)
	_, err = listed(t, r, "")
	silent("a listing", err)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	s.deaf.Store(false)
	time.Sleep(time.Second) // for so long an attempt that failed is the answer
	if got, _, err := read(t, r, "f", 0, 3, version); got != "xxx" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	mute, err := net.Listen("tcp", "127.0.0.1:0") // it says not even who it is
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	h.knows(mute.Addr().String(), s.host.PublicKey())
	_, err = listed(t, h.store(d, "127.0.0.1:"+strconv.Itoa(mute.Addr().(*net.TCPAddr).Port), dir), "")
	silent("a connection", err)
}

// endless lists names without end.
type endless struct{ sent func(n int) }

func (e endless) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	if r.Method == "Stat" {
		st, err := os.Stat("/")
		return one{st}, err
	}
	return e, nil
}

func (e endless) ListAt(to []os.FileInfo, off int64) (int, error) {
	st, err := os.Stat("/")
	for i := range to {
		to[i] = named{st, fmt.Sprint("n", off+int64(i))}
	}
	e.sent(len(to))
	return len(to), err
}

type one struct{ os.FileInfo }

func (o one) ListAt(to []os.FileInfo, off int64) (int, error) {
	if off > 0 {
		return 0, io.EOF
	}
	to[0] = o.FileInfo
	return 1, nil
}

type named struct {
	os.FileInfo
	name string
}

func (n named) Name() string { return n.name }

// TestEndlessListingIsEnded fails when a host whose listing has no end is listened to
// without one, and grows the daemon.
func TestEndlessListingIsEnded(t *testing.T) {
	t.Parallel()
	s, h := ready(t)
	var mu sync.Mutex
	sent := 0
	s.handlers = sftp.Handlers{FileList: endless{func(n int) {
		mu.Lock()
		defer mu.Unlock()
		sent += n
	}}}
	d := h.driver()
	d.most = 1 << 20
	_, err := listed(t, h.store(d, s.authority(), "/d"), "")
	if !errors.Is(err, errTooLong) {
		t.Error(err)
	}
	s.cut()
	mu.Lock()
	defer mu.Unlock()
	if sent < 100 || sent > 100_000 {
		t.Errorf("%d names were sent", sent)
	}
}

// TestSessionsAreFew fails when many files that are read at once have more sessions than a
// server gives for a connection, or when a server that gives one alone can't be read.
func TestSessionsAreFew(t *testing.T) {
	t.Parallel()
	for _, most := range []int64{0, 1, 2} {
		s, h := ready(t)
		s.most = most
		dir := t.TempDir()
		for i := range 40 {
			fileWith(t, dir, fmt.Sprint(i), "content")
		}
		r := h.store(h.driver(), s.authority(), dir)
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				if got, _, err := read(t, r, fmt.Sprint(i), 0, 7, ""); got != "content" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
		wg.Wait()
		if c, n := s.conns.Load(), s.sessions.Load(); c != 1 || n > 1+maxSessions || most > 0 && n > most {
			t.Errorf("of %d sessions: %d connections, %d sessions", most, c, n)
		}
	}
}

// TestOfflineHostIsNotAsked fails when a host is asked although the network is not to be
// used, or when who waits for it is not let go when the context ends.
func TestOfflineHostIsNotAsked(t *testing.T) {
	t.Parallel()
	s, h := ready(t)
	d := h.driver()
	d.Settings.Offline = true
	if _, err := listed(t, h.store(d, s.authority(), "/"), ""); err == nil || s.conns.Load() > 0 {
		t.Errorf("%v, %d connections", err, s.conns.Load())
	}
	s.deaf.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := h.store(h.driver(), s.authority(), "/").List(ctx, ""); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	s.cut()
}
