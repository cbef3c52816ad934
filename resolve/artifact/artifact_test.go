package artifact

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func logTo(b *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// TestCleanLeavesOutWhatCanNotBeShown fails when a listing from a server shows a name
// that leads out of its directory, is too long, is there twice or has no size, a file
// for the directory of its name, or when an entry is left out without a line in the
// log.
func TestCleanLeavesOutWhatCanNotBeShown(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	long := strings.Repeat("é", 128)
	got, left := Clean(logTo(&log), "dir", []Entry{
		{Name: "z"}, {Name: ""}, {Name: "."}, {Name: ".."}, {Name: "/etc"}, {Name: "a/b"}, {Name: "a\x00"},
		{Name: long}, {Name: long[:254]}, {Name: "a"}, {Name: "a"}, {Name: "n", Size: -1}, {Name: ".hidden"},
		{Name: "both", Size: 10}, {Name: "both", IsDir: true}, {Name: "stub"}, {Name: "stub", IsDir: true},
	})
	want := []Entry{{Name: ".hidden"}, {Name: "a"}, {Name: "both", IsDir: true}, {Name: "stub", IsDir: true}, {Name: "z"}, {Name: long[:254]}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := strings.Count(log.String(), "\n"); n != 10 || len(left) != 10 {
		t.Errorf("%d lines in the log, and %v, for 10 entries:\n%s", n, left, &log)
	}
}

// FuzzListingHasOnlyNamesThatCanBeShown fails when some answer to ListArtifacts gives
// a name that no file can have, a negative size, or names that are not in order.
func FuzzListingHasOnlyNamesThatCanBeShown(f *testing.F) {
	f.Add([]byte(`{"files":[{"path":"a","is_dir":false,"file_size":"12"},{"path":"..","file_size":-1},{"path":"d","is_dir":true}]}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"files":[{"path":"a","file_size":1e99},{"path":"a","file_size":[]}]}`))
	log := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, _, err := decodeListing(bytes.NewReader(b))
		if err != nil {
			return
		}
		last := ""
		shown, _ := Clean(log, "d", entries)
		for _, e := range shown {
			if BadName(e.Name) != "" || e.Size < 0 || e.Name <= last && last != "" {
				t.Errorf("%+v after %q", e, last)
			}
			last = e.Name
		}
	})
}

// TestListingIsDecodedAsMLflowSendsIt fails when a file of a listing has another size
// than the server says, as a number or as a string, or when a broken listing is
// taken for an empty directory.
func TestListingIsDecodedAsMLflowSendsIt(t *testing.T) {
	t.Parallel()
	got, _, err := decodeListing(strings.NewReader(`{"files":[{"path":"a","is_dir":false,"file_size":12},{"path":"b","is_dir":false,"file_size":"13"},{"path":"empty","is_dir":false},{"path":"d","is_dir":true},{"path":"x","file_size":"many"}]}`))
	want := []Entry{{Name: "a", Size: 12}, {Name: "b", Size: 13}, {Name: "empty"}, {Name: "d", IsDir: true}, {Name: "x", Size: -1}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
	for _, bad := range []string{"", "<html>", `{"files":`} {
		if _, _, err := decodeListing(strings.NewReader(bad)); err == nil || err == io.EOF {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestBadContentRangeIsRefused fails when an answer that says nonsense about which
// bytes it holds is taken, so that a read gets bytes of another place.
func TestBadContentRangeIsRefused(t *testing.T) {
	t.Parallel()
	for s, want := range map[string][3]int64{
		"bytes 0-0/1": {0, 0, 1}, "bytes 5-9/10": {5, 9, 10}, "bytes 5-9/*": {5, 9, -1},
	} {
		a, b, c, err := parseContentRange(s)
		if err != nil || [3]int64{a, b, c} != want {
			t.Errorf("%q: %d %d %d %v", s, a, b, c, err)
		}
	}
	for _, s := range []string{"", "bytes", "bytes 1-0/9", "bytes 0-9/9", "bytes -1-2/9", "bytes 0-1", "bits 0-1/2", "bytes */9", "bytes 0-99999999999999999999/*"} {
		if _, _, _, err := parseContentRange(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

// FuzzContentRangeIsARange fails when some Content-Range is read as a span that can't
// be: negative, backwards, or beyond the end of the file.
func FuzzContentRangeIsARange(f *testing.F) {
	f.Add("bytes 0-99/1234")
	f.Add("bytes 0-99/*")
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, err := parseContentRange(s)
		if err == nil && (first < 0 || last < first || total >= 0 && total <= last) {
			t.Errorf("%q: %d-%d/%d", s, first, last, total)
		}
	})
}

// FuzzEscapeKeepsThePath fails when some name becomes part of an address's query or
// fragment, or gets more or fewer directories, so that another file is asked for.
func FuzzEscapeKeepsThePath(f *testing.F) {
	f.Add("a b/c#?%41+é")
	f.Fuzz(func(t *testing.T, s string) {
		if e := escape(s); strings.ContainsAny(e, "?# ") || strings.Count(e, "/") != strings.Count(s, "/") {
			t.Errorf("%q became %q", s, e)
		}
	})
}

// TestLocalStaysInItsDirectory fails when a local artifact directory lets a program
// read a file outside of it, by .. or by a symbolic link, or when what is inside
// does not list and read as it is.
func TestLocalStaysInItsDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	write := func(name, content string) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("secret", "no")
	write("root/a#b %41", "hello")
	write("root/d/e", "")
	for link, to := range map[string]string{"inside": "a#b %41", "outside": "../secret", "absolute": "/etc/passwd", "dangling": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	l, err := NewLocal(root, logTo(&log))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	got, err := l.List(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{{Name: "a#b %41", Size: 5}, {Name: "d", IsDir: true}, {Name: "inside", Size: 5}}
	entries, _ := Clean(l.log, "", got[""])
	for i := range entries {
		if entries[i].Mtime.IsZero() == !entries[i].IsDir {
			t.Error("no time of", entries[i].Name)
		}
		entries[i].Mtime = time.Time{}
	}
	if d := cmp.Diff(want, entries); d != "" {
		t.Error(d)
	}
	if strings.Count(log.String(), "\n") != 3 {
		t.Errorf("three links lead nowhere; the log:\n%s", &log)
	}
	for _, p := range []string{"outside", "absolute", "../secret", "d", "d/../../secret"} {
		if f, err := l.Open(p); err == nil {
			f.Close()
			t.Errorf("%s was opened", p)
		}
	}
	body, err := l.ReadRange(ctx, "inside", 1, 3, "")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if b, err := io.ReadAll(body); string(b) != "ell" || err != nil || body.Total != 5 {
		t.Errorf("%q %v %d", b, err, body.Total)
	}
	gone, _ := NewLocal(filepath.Join(dir, "never"), l.log)
	if e, err := gone.List(ctx, ""); len(e) != 0 || !errors.Is(err, fs.ErrNotExist) {
		t.Error(e, err)
	}
}

// TestUnsupportedNamesItsScheme fails when the error of a store that can't be read
// does not say which scheme it is about.
func TestUnsupportedNamesItsScheme(t *testing.T) {
	t.Parallel()
	u := Unsupported(`artifacts with the scheme "s3"`)
	_, err := u.List(context.Background(), "")
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "s3") {
		t.Error(err)
	}
}

// TestAmbiguousPathIsRefused fails when a path is sent to the server that it reads
// as another one, or when a path that it reads well is refused. (MLflow's own code is
// asked in TestUnambiguousAgainstMLflow.)
func TestAmbiguousPathIsRefused(t *testing.T) {
	t.Parallel()
	for _, ok := range []string{"1/r/artifacts/a b", "100%", "100%.txt", "%zz", "q?x", "a;b", "x?/f", "é", "😀", "a;;", "a?q;"} {
		if err := unambiguous(ok); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"a#b", "a%41", "a%2fb/c", "a\nb", "a?", "d/a;", "x;?q"} {
		if unambiguous(bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestAnswerOfAnotherRangeIsRefused fails when bytes of another part of a file are taken
// for those that were asked for, be they as many.
func TestAnswerOfAnotherRangeIsRefused(t *testing.T) {
	t.Parallel()
	for header, ok := range map[string]bool{
		"bytes 10-19/100": true, "bytes 10-19/*": true,
		"bytes 0-9/100": false, "bytes 20-29/100": false, "bytes 10-18/100": false, "bytes 10-20/100": false, "bytes 9-19/100": false, "bytes */100": false, "": false,
	} {
		if err := heldTo(header, 10, 10); (err == nil) != ok {
			t.Errorf("%q for 10 bytes from 10: %v", header, err)
		}
	}
}

// TestPipeInAStoreIsWaitedForByNobody fails when a file of a store on this machine
// that has become a named pipe since it was listed keeps who opens it waiting for
// somebody who writes to it.
func TestPipeInAStoreIsWaitedForByNobody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "f"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := NewLocal(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := l.Open("f")
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a pipe is opened as a file")
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits")
	}
}
