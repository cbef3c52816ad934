package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
	"github.com/mlflowfs/mlflowfs/test/fault"
)

// isArtifact tells whether a request is for an artifact's bytes.
func isArtifact(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, artifactsAPI+"/") }

// TestBrokenAnswersGiveNoWrongByte fails when an answer that breaks off, has too
// few bytes, is another range, or is refused, makes a read wrong or short; when a
// fault that passes fails a read; or when a read fails with another errno than
// the fault means.
func TestBrokenAnswersGiveNoWrongByte(t *testing.T) {
	t.Parallel()
	for _, kind := range byteKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			brokenAnswers(t, newBytesOf(t, kind), kind)
		})
	}
}

const (
	eio    = "Input/output error"
	eacces = "Permission denied"
	enoent = "No such file or directory"
	estale = "Stale file handle"
)

func brokenAnswers(t *testing.T, b *bytesOf, kind string) {
	file, tiny := b.plant("file.bin", 12<<20), b.plant("tiny.bin", 1000)
	want := sumOf(t, b.onDisk("file.bin"))
	status := func(code int, header ...string) count.Before {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			return true
		}
	}
	// breaks has n requests for bytes fail, and tells how many did.
	breaks := func(n int64, before count.Before, after count.After) (met *atomic.Int64) {
		met = &atomic.Int64{}
		b.counted.Break(func(w http.ResponseWriter, r *http.Request) bool {
			return before != nil && !fault.OfServer(r) && b.isBytes(r) && met.Add(1) <= n && before(w, r)
		}, func(r *http.Response) error {
			if after != nil && !fault.OfServer(r.Request) && b.isBytes(r.Request) && met.Add(1) <= n {
				return after(r)
			}
			return nil
		})
		return met
	}
	for _, c := range []struct {
		what   string
		n      int64
		before count.Before
		after  count.After
	}{
		{"503 twice", 2, status(503), nil},
		{"429 with Retry-After", 1, status(429, "Retry-After", "1"), nil},
		{"500 once", 1, status(500), nil},
		{"a hang-up before the answer", 2, func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, nil},
		{"a connection that breaks in mid-body", 3, nil, func(r *http.Response) error { fault.Cut(r, 1<<20+17); return nil }},
		{"a body that ends early and cleanly", 3, nil, func(r *http.Response) error { fault.EndEarly(r, 1<<20+5); return nil }},
	} {
		t.Run(c.what, func(t *testing.T) {
			m := mountAt(t, b.uri, fast)
			met := breaks(c.n, c.before, c.after)
			defer b.counted.Break(nil, nil)
			out, err := output("sha256sum", m.path(file))
			if err != nil || !strings.HasPrefix(string(out), want) {
				t.Errorf("%s, %v\n%s", out, err, m.log)
			}
			if met.Load() < c.n {
				t.Errorf("only %d of %d faults were met", met.Load(), c.n)
			}
		})
	}
	for _, c := range []struct {
		what, errno string
		before      count.Before
		after       count.After
	}{
		{"404", enoent, func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "<Error><Code>NoSuchKey</Code></Error>", http.StatusNotFound)
			return true
		}, nil},
		{"401", eacces, status(401), nil},
		{"403", eacces, status(403), nil},
		{"503 for ever", eio, status(503), nil},
		{"400", eio, status(400), nil},
		{"a body that always ends early", eio, nil, func(r *http.Response) error { fault.EndEarly(r, 100); return nil }},
		{"an empty body with 200", estale, func(http.ResponseWriter, *http.Request) bool { return true }, nil},
		{"another range", eio, func(w http.ResponseWriter, r *http.Request) bool {
			status(206, "Content-Range", "bytes 1-1/2000000")(w, r)
			w.Write([]byte("x"))
			return true
		}, nil},
		{"another range of that length", eio, func(w http.ResponseWriter, r *http.Request) bool {
			whole, _ := os.ReadFile(b.onDisk(path.Base(r.URL.Path)))
			from, to := 0, len(whole)-2 // of one that asks for no range, or for all
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			to = min(to, len(whole)-1)
			if from > 0 {
				from, to = from-1, to-1
			} else {
				from, to = 1, min(to+1, len(whole)-1)
			}
			status(206, "Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(whole)))(w, r)
			w.Write(whole[from : to+1])
			return true
		}, nil},
		{"a 206 without a range", eio, status(206), nil},
		{"another size", estale, nil, func(r *http.Response) error {
			if r.StatusCode == http.StatusPartialContent {
				rng := r.Header.Get("Content-Range")
				r.Header.Set("Content-Range", rng[:strings.IndexByte(rng, '/')]+"/999999999")
			} else {
				fault.Lengthen(r, "more")
			}
			return nil
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			m := mountAt(t, b.uri, fast)
			breaks(math.MaxInt64, c.before, c.after)
			defer b.counted.Break(nil, nil)
			for _, f := range []string{file, tiny} {
				begin := time.Now()
				got, err := read(m.path(f))
				// Where the only route fails, that the other one is refused is the errno.
				if err == nil || !strings.Contains(err.Error(), c.errno) && (kind != presigned || c.errno != eio || !strings.Contains(err.Error(), eacces)) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				whole, _ := os.ReadFile(b.onDisk(filepath.Base(f)))
				if !bytes.HasPrefix(whole, got) {
					t.Error("wrong bytes")
				}
				if time.Since(begin) > 30*time.Second {
					t.Errorf("it took %v", time.Since(begin))
				}
			}
			b.counted.Break(nil, nil)
			// The fault over, the same mount reads it.
			waitFor(t, "the mount does not recover", 20*time.Second, func() bool {
				out, err := output("sha256sum", m.path(file))
				return err == nil && strings.HasPrefix(string(out), want)
			})
			if !strings.Contains(m.log.String(), "read failed") {
				t.Errorf("the log says nothing:\n%s", m.log)
			}
		})
	}
}

// TestReplacedUnderAReaderIsStale fails when a file that is replaced under its
// reader reads as a mixture; or when the next open does not see what is new,
// however long the old answer might be believed.
func TestReplacedUnderAReaderIsStale(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	for what, c := range map[string]struct {
		grown  int64
		closed bool // the old reader goes before the next open
	}{"same size": {0, false}, "grown": {5, false}, "shrunk": {-5, false}, "same size, closed": {0, true}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			const size, far = 64 << 20, 56 << 20
			file, onDisk := plant(t, s, "file.bin", size, text())
			m := mountRaced(t, s.uri, fast, "--metadata-ttl", "1h")
			reader := exec.Command("python3", "-c", `
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print(len(os.pread(fd, 4096, 0)), flush=True)
sys.stdin.readline()
try:
    os.pread(fd, 4096, int(sys.argv[2]))
    print("read")
except OSError as e:
    print(os.strerror(e.errno))
`, m.path(file), fmt.Sprint(far))
			in, _ := reader.StdinPipe()
			pipe, _ := reader.StdoutPipe()
			if err := reader.Start(); err != nil {
				t.Fatal(err)
			}
			end := sync.OnceFunc(func() {
				in.Close()
				reader.Wait()
			})
			defer end()
			out := bufio.NewReader(pipe)
			if got, err := out.ReadString('\n'); err != nil || got != "4096\n" {
				t.Fatal(got, err)
			}
			f, err := os.OpenFile(onDisk, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range []int64{0, far} {
				f.WriteAt([]byte("something new"), at)
			}
			f.Truncate(size + c.grown)
			f.Close()
			later := time.Now().Add(time.Second)
			if err := os.Chtimes(onDisk, later, later); err != nil {
				t.Fatal(err)
			}
			io.WriteString(in, "go\n")
			if got, err := out.ReadString('\n'); err != nil || got != "Stale file handle\n" {
				t.Errorf("%q, %v", got, err)
			}
			if c.closed {
				end()
			}
			got, err := output("sha256sum", m.path(file))
			if err != nil || !strings.HasPrefix(string(got), sumOf(t, onDisk)) {
				t.Errorf("the next open: %s, %v", got, err)
			}
		})
	}
}

// TestHostileListingShowsNamesOnly fails when a listing that a hostile server sends
// shows what could not be a file's name.
func TestHostileListingShowsNamesOnly(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	p := proxyTo(t, s.uri)
	hostile := []string{"..", ".", "", "/etc/passwd", "a/b", "../../escape", strings.Repeat("n", 256), "nul\x00"}
	p.Break(nil, func(r *http.Response) error {
		if r.Request.URL.Path != artifactsAPI || r.Request.URL.Query().Get("path") == "" {
			return nil
		}
		var doc struct {
			Files []map[string]any `json:"files"`
		}
		if err := json.NewDecoder(r.Body).Decode(&doc); err != nil {
			return err
		}
		for _, h := range hostile {
			doc.Files = append(doc.Files, map[string]any{"path": h, "is_dir": false, "file_size": 5}, map[string]any{"path": h, "is_dir": true})
		}
		doc.Files = append(doc.Files, map[string]any{"path": "doc", "is_dir": false, "file_size": "7"}, map[string]any{"path": "neg", "file_size": -5}, map[string]any{"path": "nan", "file_size": "x"})
		b, _ := json.Marshal(doc)
		r.Body = io.NopCloser(bytes.NewReader(b))
		r.ContentLength = int64(len(b))
		r.Header.Set("Content-Length", strconv.Itoa(len(b)))
		return nil
	})
	m := mountAt(t, p.URL, fast)
	out, err := output("ls", "-a", m.path("runs", s.Wide))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{".", "..", "big.bin", "deep", "doc", "empty", "many", "model", "names"}
	if got := strings.Join(lines(out), " "); got != strings.Join(want, " ") {
		t.Errorf("shown are %s", got)
	}
	for _, why := range []string{"parent", "slash", "NUL", "more than 255 bytes", "empty name", "a directory's name", "negative"} {
		waitFor(t, "the log does not name what "+why, long, func() bool { return strings.Contains(m.log.String(), why) })
	}
}

// TestSignalsEndOrDoNotDisturb fails when a program that is killed does not let go
// of its wait at once, or when one that handles its signals gets an EINTR.
func TestSignalsEndOrDoNotDisturb(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	p := proxyTo(t, s.uri)
	file, onDisk := plant(t, s, "file.bin", 24<<20, text())
	m := mountRaced(t, p.URL, nil)
	if _, err := output("ls", "-l", m.path(filepath.Dir(file))); err != nil {
		t.Fatal(err)
	}
	stall := make(chan struct{})
	p.Break(func(_ http.ResponseWriter, r *http.Request) bool {
		if isArtifact(r) {
			<-stall
		}
		return false
	}, nil)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
		c := exec.Command("cat", m.path(file))
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the reader does not wait", long, func() bool {
			open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.Process.Pid))
			for _, fd := range open {
				if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", c.Process.Pid, fd.Name())); strings.HasPrefix(to, m.dir) {
					st, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
					return bytes.Contains(st, []byte(") D ")) || bytes.Contains(st, []byte(") S "))
				}
			}
			return false
		})
		begin := time.Now()
		c.Process.Signal(sig)
		c.Wait()
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("a reader with signal %v went after %v", sig, d)
		}
	}
	close(stall)

	// Each answer takes longer than the timer's tick.
	p.Break(func(_ http.ResponseWriter, r *http.Request) bool {
		time.Sleep(50 * time.Millisecond)
		return false
	}, nil)
	out, err := output("python3", "-c", `
import hashlib, os, signal, sys
ticks = 0
def tick(*_):
    global ticks
    ticks += 1
signal.signal(signal.SIGALRM, tick)
signal.siginterrupt(signal.SIGALRM, True)
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(sys.argv[1], os.O_RDONLY)
h, buf = hashlib.sha256(), ctypes.create_string_buffer(1 << 16)
while True:
    n = libc.read(fd, buf, 1 << 16)  # no retry behind our back
    if n < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if n == 0:
        break
    h.update(buf.raw[:n])
signal.setitimer(signal.ITIMER_REAL, 0)
print(h.hexdigest(), ticks)
`, m.path(file))
	if err != nil || !strings.HasPrefix(string(out), sumOf(t, onDisk)) {
		t.Errorf("%s, %v", out, err)
	}
	if f := strings.Fields(string(out)); len(f) < 2 || len(f[1]) < 2 {
		t.Errorf("hardly a tick: %s", out)
	}
}
