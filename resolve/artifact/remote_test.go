package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mlflowfs/mlflowfs/cache"
)

func remoteOf(h *Host, root, within string) *Remote {
	return NewRemote(h, RemoteOptions{URI: "sftp://h" + root, ID: "sftp://u@h" + root, Root: root, Within: within, Log: slog.New(slog.DiscardHandler)})
}

// readAll reads a range.
func readAll(t *testing.T, r *Remote, file string, off, n int64, validator string) (string, *cache.Body, error) {
	t.Helper()
	body, err := r.ReadRange(t.Context(), file, off, n, validator)
	if err != nil {
		return "", nil, err
	}
	b, err := io.ReadAll(body)
	if cerr := body.Close(); cerr != nil {
		t.Error(cerr)
	}
	return string(b), body, err
}

// TestRemoteGivesBytesOfOneVersion fails when a file of a host that is written over, or
// replaced, while it is read gives bytes of two versions, be they of one answer, or when a
// read of one version is answered with another.
func TestRemoteGivesBytesOfOneVersion(t *testing.T) {
	t.Parallel()
	h := &hostTree{}
	r := remoteOf(h.host(), "/d", "")
	const size = 16 * pieceSize
	h.put("/d/f", 'a', size)
	body, err := r.ReadRange(t.Context(), "f", 0, size, "")
	if err != nil || body.Total != size || body.Validator == "" {
		t.Fatal(body, err)
	}
	begin := make([]byte, 1000)
	if _, err := io.ReadFull(body, begin); err != nil {
		t.Fatal(err)
	}
	h.put("/d/f", 'b', size)
	rest, err := io.ReadAll(body)
	if !errors.Is(err, cache.ErrChanged) || bytes.ContainsRune(rest, 'b') {
		t.Errorf("%d bytes, with a b: %v, %v", len(rest), bytes.ContainsRune(rest, 'b'), err)
	}
	body.Close()
	if _, _, err := readAll(t, r, "f", 0, 10, body.Validator); !errors.Is(err, cache.ErrChanged) {
		t.Error("the version that is no more:", err)
	}
	if got, now, err := readAll(t, r, "f", size-3, 3, ""); got != "bbb" || err != nil || now.Validator == body.Validator {
		t.Errorf("%q, %v", got, err)
	}
	h.mu.Lock()
	delete(h.files, "/d/f")
	h.mu.Unlock()
	if _, _, err := readAll(t, r, "f", 0, 10, "b"); !errors.Is(err, cache.ErrChanged) {
		t.Error("a file that is gone, of which a part was read:", err)
	}
	if _, _, err := readAll(t, r, "f", 0, 10, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file that is gone:", err)
	}
}

// TestHostHasOneConnection fails when many who read a host make more than one connection,
// when one that has broken is not made anew at once, or when a host that is not there, or
// refuses the user, is asked again and again.
func TestHostHasOneConnection(t *testing.T) {
	t.Parallel()
	h := &hostTree{}
	host := h.host()
	r := remoteOf(host, "/d", "")
	for i := range 50 {
		h.put(fmt.Sprint("/d/", i), 'x', 10)
	}
	all := func() {
		t.Helper()
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if got, _, err := readAll(t, r, fmt.Sprint(i), 0, 10, ""); got != "xxxxxxxxxx" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
		wg.Wait()
	}
	all()
	if n := h.dials.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	host.conn.Close()
	all()
	if n := h.dials.Load(); n != 2 {
		t.Errorf("%d connections, one of which broke", n)
	}
	host.conn.Close()
	refused := &hostTree{refuse: func() error { return NoCredentials("no key") }}
	if _, err := remoteOf(refused.host(), "/", "").List(t.Context(), ""); !errors.Is(err, fs.ErrPermission) || refused.dials.Load() != 1 {
		t.Errorf("refused: %v, after %d attempts", err, refused.dials.Load())
	}
	began := time.Now()
	h.refuse = func() error {
		if time.Since(began) < 1500*time.Millisecond {
			return errors.New("it is being restarted")
		}
		return nil
	}
	all()
	if n := h.dials.Load(); n > 6 || time.Since(began) > 10*time.Second {
		t.Errorf("%d connections after %v", n, time.Since(began))
	}
	host.Close()
	if host.conn != nil {
		t.Error("a connection that nobody uses stays")
	}
}

// TestOpenFilesOfAHostAreUsedAgain fails when each range of a file opens it anew, which
// is two round trips more, when a file that changed is read on by one that is open, or
// when files stay open without a bound.
func TestOpenFilesOfAHostAreUsedAgain(t *testing.T) {
	t.Parallel()
	h := &hostTree{}
	r := remoteOf(h.host(), "/d", "")
	h.put("/d/f", 'a', 1000)
	_, body, err := readAll(t, r, "f", 0, 10, "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if _, _, err := readAll(t, r, "f", int64(i), 10, body.Validator); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.opens.Load(); n != 1 {
		t.Errorf("opened %d times", n)
	}
	for i := range 3 * maxIdle {
		name := fmt.Sprint(i)
		h.put("/d/"+name, 'x', 1)
		if _, _, err := readAll(t, r, name, 0, 1, ""); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(10 * time.Second); h.opens.Load()-h.closes.Load() > maxIdle; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d files stay open", h.opens.Load()-h.closes.Load(), h.opens.Load())
		}
	}
}

// TestRemoteStaysInItsPlace fails when a name with .. leads out of a directory of a host,
// when a symbolic link leads out of what the settings name, or when one that the user may
// follow is not followed.
func TestRemoteStaysInItsPlace(t *testing.T) {
	t.Parallel()
	h := &hostTree{links: map[string]string{"/d/run/out": "/secret", "/d/run/in": "/d/other", "/d/run/away": "/etc", "/srv": "/d", "/d/run/gone": "/d/none"}}
	h.put("/secret", 's', 6)
	h.put("/etc/passwd", 's', 6)
	h.put("/d/other", 'o', 5)
	h.put("/d/run/f", 'f', 4)
	names := func(r *Remote) (out []string) {
		t.Helper()
		tree, err := r.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		entries, _ := Clean(r.log, "", tree[""])
		for _, e := range entries {
			out = append(out, fmt.Sprint(e.Name, " ", e.Size))
		}
		return out
	}
	open := remoteOf(h.host(), "/d/run", "")
	if d := cmp.Diff([]string{"f 4", "in 5", "out 6"}, names(open)); d != "" {
		t.Error("where links may lead anywhere:", d)
	}
	for _, root := range []string{"/d/run", "/srv/run"} {
		held := remoteOf(h.host(), root, root[:len(root)-len("/run")])
		if d := cmp.Diff([]string{"f 4", "in 5"}, names(held)); d != "" {
			t.Error("where links must not lead out:", d)
		}
		for _, p := range []string{"out", "away/passwd"} {
			if _, _, err := readAll(t, held, p, 0, 6, ""); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%s: %v", p, err)
			}
			if _, err := held.Stat(t.Context(), p); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%s: %v", p, err)
			}
		}
		if _, err := held.List(t.Context(), "away"); !errors.Is(err, fs.ErrPermission) {
			t.Error(err)
		}
		if got, _, err := readAll(t, held, "in", 0, 5, ""); got != "ooooo" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	for _, p := range []string{"../other", "../../secret", "x/../../other", "/../other", "./../../../secret"} {
		if _, _, err := readAll(t, open, p, 0, 1, ""); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// TestRemoteListsFilesAndDirectories fails when what is neither is shown, so that who
// reads it waits for ever, or when a file that changed just now is known by a time that
// the next change may have, too.
func TestRemoteListsFilesAndDirectories(t *testing.T) {
	t.Parallel()
	h := &hostTree{files: map[string]*hostFile{
		"/d/old":  {version: "1", mtime: time.Unix(1, 0)},
		"/d/new":  {version: "2", mtime: time.Now()},
		"/d/dir":  {kind: fs.ModeDir, mtime: time.Unix(1, 0), version: "3"},
		"/d/pipe": {kind: fs.ModeNamedPipe}, "/d/sock": {kind: fs.ModeSocket}, "/d/dev": {kind: fs.ModeDevice},
	}}
	r := remoteOf(h.host(), "/d/", "")
	tree, err := r.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	got, _ := Clean(r.log, "", tree[""])
	for i := range got {
		got[i].Mtime = time.Time{}
	}
	if d := cmp.Diff([]Entry{{Name: "dir", IsDir: true}, {Name: "new"}, {Name: "old", Version: "1"}}, got); d != "" {
		t.Error(d)
	}
	if _, err := r.Stat(t.Context(), "pipe"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if e, err := r.Stat(t.Context(), "new"); e.Version != "" || err != nil {
		t.Error(e, err)
	}
}

// TestReaderOfAHostLetsGo fails when who reads a file of a host that does not answer waits
// on after its context has ended, or after the body is closed beside it.
func TestReaderOfAHostLetsGo(t *testing.T) {
	t.Parallel()
	h := &hostTree{hang: make(chan struct{})}
	defer close(h.hang)
	h.put("/f", 'a', pieceSize)
	ends := func(how string, read func() error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- read() }()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s: no error", how)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: it waits", how)
		}
	}
	soon := func(f func()) { time.AfterFunc(20*time.Millisecond, f) }
	ctx, cancel := context.WithCancel(t.Context())
	soon(cancel)
	ends("its context ends", func() error {
		_, err := remoteOf(h.host(), "/", "").ReadRange(ctx, "f", 0, pieceSize, "")
		return err
	})
	file := &hostOpen{&hostConn{h: h}, "/f", Entry{Size: pieceSize}}
	ctx, cancel = context.WithCancel(t.Context())
	soon(cancel)
	ends("the context of a body ends", func() error {
		_, err := io.ReadAll(newPieces(ctx, file, 0, 100, func(bool) {}))
		return err
	})
	body := newPieces(t.Context(), file, 0, 100, func(bool) {})
	soon(func() { body.Close() })
	ends("it is closed", func() error {
		_, err := io.ReadAll(body)
		return err
	})
}

// TestRootOfAHostIsItsRoot fails when the store of a host's root asks for anything else,
// such as an empty path: that is the user's home to SFTP, and an error to HDFS.
func TestRootOfAHostIsItsRoot(t *testing.T) {
	t.Parallel()
	for root, want := range map[string]string{"": "/", "/": "/", "//": "/", "/d/": "/d"} {
		if got := remoteOf(nil, root, "").full(""); got != want {
			t.Errorf("%q: %q", root, got)
		}
	}
	if got := remoteOf(nil, "/", "").full("../f"); got != "/f" {
		t.Error(got)
	}
}
