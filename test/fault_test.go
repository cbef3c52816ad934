package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// isArtifact tells whether a request is for an artifact's bytes.
func isArtifact(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, artifactsAPI+"/") }

// cutBody ends a body early: cleanly, as a proxy on the way does that lost its
// own upstream, or with an error that breaks the connection.
type cutBody struct {
	io.ReadCloser
	left  int64
	clean bool
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		if b.clean {
			return 0, io.EOF
		}
		return 0, fmt.Errorf("cut")
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func cut(resp *http.Response, at int64, clean bool) {
	resp.Body = &cutBody{resp.Body, at, clean}
	if clean {
		resp.ContentLength = -1
		resp.Header.Del("Content-Length")
	}
}

// Answers that break off, too few bytes, refusals that pass: what is read is
// right in the end, or an error, and never short.
func TestBrokenAnswers(t *testing.T) {
	for kind, size := range map[string]int64{"server 3.17": 40 << 20, "server 2.22": 24 << 20} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := shared.get(t, kind)
			p := proxyTo(t, s.uri)
			file, onDisk := plant(t, s, "file.bin", size, text())
			tiny, _ := plant(t, s, "tiny.bin", 1000, text())
			want := sumOf(t, onDisk)
			heals := func(what string, n int64, before func(http.ResponseWriter, *http.Request) bool, after func(*http.Response) error) {
				t.Run(what, func(t *testing.T) {
					m := mountAt(t, p.URL, fast)
					var faults atomic.Int64
					p.faults(func(w http.ResponseWriter, r *http.Request) bool {
						return before != nil && isArtifact(r) && faults.Add(1) <= n && before(w, r)
					}, func(r *http.Response) error {
						if after != nil && isArtifact(r.Request) && faults.Add(1) <= n {
							return after(r)
						}
						return nil
					})
					defer p.faults(nil, nil)
					out, err := output("sha256sum", m.path(file))
					if err != nil || !strings.HasPrefix(string(out), want) {
						t.Errorf("%s, %v\n%s", out, err, m.log)
					}
					if faults.Load() < n {
						t.Errorf("only %d of %d faults were met", faults.Load(), n)
					}
				})
			}
			status := func(code int, header ...string) func(http.ResponseWriter, *http.Request) bool {
				return func(w http.ResponseWriter, _ *http.Request) bool {
					for i := 0; i+1 < len(header); i += 2 {
						w.Header().Set(header[i], header[i+1])
					}
					w.WriteHeader(code)
					return true
				}
			}
			heals("503 twice", 2, status(503), nil)
			heals("429 with Retry-After", 1, status(429, "Retry-After", "1"), nil)
			heals("500 once", 1, status(500), nil)
			heals("a hang-up before the answer", 2, func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, nil)
			heals("a connection that breaks in mid-body", 3, nil, func(r *http.Response) error { cut(r, 3<<20+17, false); return nil })
			heals("a body that ends early and cleanly", 3, nil, func(r *http.Response) error { cut(r, 2<<20+5, true); return nil })

			fails := func(what, errno string, before func(http.ResponseWriter, *http.Request) bool, after func(*http.Response) error) {
				t.Run(what, func(t *testing.T) {
					m := mountAt(t, p.URL, fast)
					p.faults(func(w http.ResponseWriter, r *http.Request) bool {
						return before != nil && isArtifact(r) && before(w, r)
					},
						func(r *http.Response) error {
							if after != nil && isArtifact(r.Request) {
								return after(r)
							}
							return nil
						})
					defer p.faults(nil, nil)
					for _, f := range []string{file, tiny} {
						begin := time.Now()
						got, err := read(m.path(f))
						if err == nil || !strings.Contains(err.Error(), errno) {
							t.Errorf("%d bytes, %v", len(got), err)
						}
						whole, _ := os.ReadFile(strings.Replace(onDisk, "file.bin", filepath.Base(f), 1))
						if !bytes.HasPrefix(whole, got) {
							t.Error("wrong bytes")
						}
						if time.Since(begin) > 30*time.Second {
							t.Errorf("it took %v", time.Since(begin))
						}
					}
					p.faults(nil, nil)
					// The fault over, the same mount reads it.
					waitFor(t, "the mount does not recover", 20e9, func() bool {
						out, err := output("sha256sum", m.path(file))
						return err == nil && strings.HasPrefix(string(out), want)
					})
					if m.log.String() == "" || !strings.Contains(m.log.String(), "read failed") {
						t.Errorf("the log says nothing:\n%s", m.log)
					}
				})
			}
			const eio = "Input/output error"
			fails("404", "No such file or directory", status(404), nil)
			fails("401", "Permission denied", status(401), nil)
			fails("403", "Permission denied", status(403), nil)
			fails("503 for ever", eio, status(503), nil)
			fails("400", eio, status(400), nil)
			fails("a body that always ends early", eio, nil, func(r *http.Response) error { cut(r, 100, true); return nil })
			fails("an empty body with 200", "Stale file handle", func(w http.ResponseWriter, _ *http.Request) bool { return true }, nil)
			fails("another range", eio, func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Range", "bytes 1-1/2000000")
				w.WriteHeader(206)
				w.Write([]byte("x"))
				return true
			}, nil)
			fails("a 206 without a range", eio, status(206), nil)
			fails("another size", "Stale file handle", nil, func(r *http.Response) error {
				if r.StatusCode == 206 {
					rng := r.Header.Get("Content-Range")
					r.Header.Set("Content-Range", rng[:strings.IndexByte(rng, '/')]+"/999999999")
				} else {
					r.Body = io.NopCloser(io.MultiReader(r.Body, strings.NewReader("more")))
				}
				return nil
			})
		})
	}
}

// A file that is replaced under its reader is stale, and never a mixture; the
// next open sees what is new, however long the old answer might be believed.
func TestReplacedUnderAReader(t *testing.T) {
	s := shared.get(t, "server 3.17")
	for what, grown := range map[string]int64{"same size": 0, "grown": 5, "shrunk": -5} {
		t.Run(what, func(t *testing.T) {
			const size, far = 120 << 20, 100 << 20
			file, onDisk := plant(t, s, "file.bin", size, text())
			m := mountAt(t, s.uri, fast, "--metadata-ttl", "1h")
			c := exec.Command("python3", "-c", `
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
			in, _ := c.StdinPipe()
			pipe, _ := c.StdoutPipe()
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				in.Close()
				c.Wait()
			}()
			out := bufio.NewReader(pipe)
			if got, err := out.ReadString('\n'); err != nil || got != "4096\n" {
				t.Fatal(got, err)
			}
			time.Sleep(20 * time.Millisecond) // another modification time
			f, err := os.OpenFile(onDisk, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range []int64{0, far} {
				f.WriteAt([]byte("something new"), at)
			}
			f.Truncate(size + grown)
			f.Close()
			io.WriteString(in, "go\n")
			if got, err := out.ReadString('\n'); err != nil || got != "Stale file handle\n" {
				t.Errorf("%q, %v", got, err)
			}
			got, err := output("sha256sum", m.path(file))
			if err != nil || !strings.HasPrefix(string(got), sumOf(t, onDisk)) {
				t.Errorf("the next open: %s, %v", got, err)
			}
		})
	}
}

// A listing that a hostile server sends shows nothing that could not be a name.
func TestHostileListing(t *testing.T) {
	s := shared.get(t, "server 3.17")
	p := proxyTo(t, s.uri)
	hostile := []string{"..", ".", "", "/etc/passwd", "a/b", "../../escape", strings.Repeat("n", 256), "nul\x00"}
	p.faults(nil, func(r *http.Response) error {
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
	for _, why := range []string{"parent", "slash", "NUL", "more than 255 bytes", "empty name", "twice", "negative"} {
		if !strings.Contains(m.log.String(), why) {
			t.Errorf("the log does not name what %s:\n%s", why, m.log)
		}
	}
}

// Signals: a program that is killed lets go of its wait at once, and one that
// only gets signals it handles is not disturbed.
func TestSignals(t *testing.T) {
	s := shared.get(t, "server 3.17")
	p := proxyTo(t, s.uri)
	file, onDisk := plant(t, s, "file.bin", 24<<20, text())
	m := mountAt(t, p.URL, nil)
	if _, err := output("ls", "-l", m.path(filepath.Dir(file))); err != nil {
		t.Fatal(err)
	}
	stall := make(chan struct{})
	p.faults(func(_ http.ResponseWriter, r *http.Request) bool {
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
		waitFor(t, "the reader does not wait", 10e9, func() bool {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", c.Process.Pid))
			st, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
			return len(b) > 1 || bytes.Contains(st, []byte(") D ")) || bytes.Contains(st, []byte(") S "))
		})
		time.Sleep(100 * time.Millisecond)
		begin := time.Now()
		c.Process.Signal(sig)
		c.Wait()
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("a reader with signal %v went after %v", sig, d)
		}
	}
	close(stall)

	// Each answer takes longer than the timer's tick.
	p.faults(func(_ http.ResponseWriter, r *http.Request) bool {
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

// A server that is stopped and started again under the mount: what was read
// reads on, what was not is an error, and all is well when it is back.
func TestServerRestarts(t *testing.T) {
	s := startServer(t, "mlflow3", nil)
	st := &seeded{uri: s.url(), release: "mlflow3", server: s}
	run := newRun(t, s.url(), "0")
	api(t, s.url(), "/api/2.0/mlflow/runs/update", map[string]any{"run_id": run, "status": "FINISHED", "end_time": time.Now().UnixMilli()})
	dir := filepath.Join(s.artifacts(), "0", run, "artifacts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"warm", "cold"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := mountAt(t, st.uri, fast, "--fill-limit", "0") // the small files do not come together
	warm, cold := m.path("runs", run, "warm"), m.path("runs", run, "cold")
	if got, err := read(warm); string(got) != "warm" || err != nil {
		t.Fatal(string(got), err)
	}
	s.stop()
	if got, err := read(warm); string(got) != "warm" || err != nil {
		t.Errorf("what was read before: %q, %v", got, err)
	}
	if _, err := read(cold); err == nil || !strings.Contains(err.Error(), "Input/output error") {
		t.Errorf("a file never read, with the server down: %v", err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if got, err := read(cold); string(got) != "cold" || err != nil {
		t.Errorf("with the server back: %q, %v", got, err)
	}

	// A read that begins while the server is down is answered when it is back,
	// with no more than the usual patience.
	s.stop()
	patient := mountAt(t, st.uri, nil)
	if !strings.Contains(patient.log.String(), "does not answer") {
		t.Errorf("a mount without its server says nothing:\n%s", patient.log)
	}
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		b, err := read(patient.path("runs", run, "cold"))
		done <- result{b, err}
	}()
	time.Sleep(500 * time.Millisecond)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if r := <-done; string(r.b) != "cold" || r.err != nil {
		t.Errorf("a read over a restart: %q, %v", r.b, r.err)
	}
}
