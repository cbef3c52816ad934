package test

import (
	"bytes"
	"cmp"
	le "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patch is the piece of which a patchwork is made, in bytes: its version, how
// long that is, and where in it the piece stands. So a mixture shows.
const patch = 16

// patchwork is a file of a version.
func patchwork(version uint32, size int) []byte {
	b := make([]byte, 0, size)
	for at := 0; at < size; at += patch {
		b = le.LittleEndian.AppendUint32(b, version)
		b = le.LittleEndian.AppendUint32(b, uint32(size))
		b = le.LittleEndian.AppendUint64(b, uint64(at))
	}
	return b
}

// mixture is a read of a replaced file that was not of one version.
type mixture struct {
	What     string
	Versions []uint32 // that it is of
}

// oneVersion tells whether b, which stood at offset off, is of one version, and
// of which, and how long that is; version 0 is any.
func oneVersion(b []byte, off int64, version uint32) (v uint32, size int64, wrong *mixture) {
	v = version
	for at := 0; at+patch <= len(b); at += patch {
		got, n, where := le.LittleEndian.Uint32(b[at:]), le.LittleEndian.Uint32(b[at+4:]), le.LittleEndian.Uint64(b[at+8:])
		if v == 0 {
			v = got
		}
		if size == 0 {
			size = int64(n)
		}
		if got != v || int64(n) != size || where != uint64(off)+uint64(at) {
			what := fmt.Sprintf("version %d at %d, where %d is wanted (it says: at %d of %d)", got, off+int64(at), v, where, n)
			return v, size, &mixture{what, []uint32{got, v}}
		}
	}
	return v, size, nil
}

// actOnReplaced reads files that are replaced: each that is open is of one
// version to its end.
func actOnReplaced(j job) {
	type handle struct {
		f       *os.File
		version uint32
	}
	r := rand.New(rand.NewPCG(j.Seed, 4))
	out := found{Errors: map[string]int{}}
	var open []handle
	read := func(h *handle, off int64, n int) (int, error) {
		buf := make([]byte, n)
		got, err := h.f.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return 0, err
		}
		v, size, wrong := oneVersion(buf[:got], off, h.version)
		h.version = v
		if st, serr := h.f.Stat(); wrong == nil && serr == nil && size != 0 && size != st.Size() {
			wrong = &mixture{fmt.Sprintf("a file of %d bytes holds version %d, which has %d", st.Size(), v, size), []uint32{v}}
		}
		if wrong == nil && err == io.EOF && size != 0 && off+int64(got) < size {
			wrong = &mixture{fmt.Sprintf("version %d ends at %d of %d", v, off+int64(got), size), []uint32{v}}
		}
		if wrong != nil {
			wrong.What = filepath.Base(h.f.Name()) + ": " + wrong.What
			out.Mixed = append(out.Mixed, *wrong)
		}
		return got, nil
	}
	for end := time.Now().Add(j.For); time.Now().Before(end); out.Ops++ {
		f, err := os.Open(filepath.Join(j.Mount, fmt.Sprint("f", r.IntN(replacedFiles))))
		if err == nil {
			h := handle{f: f}
			whole := r.IntN(2) == 0
			for off := int64(0); whole; {
				n, rerr := read(&h, off, []int{4096, 128 << 10, 1 << 20}[r.IntN(3)])
				off += int64(n)
				if err = rerr; err != nil || n == 0 {
					break
				}
			}
			open = append(open, h)
		}
		if len(open) > 0 && err == nil {
			h := &open[r.IntN(len(open))]
			_, err = read(h, int64(r.IntN(1<<20))/patch*patch, 64<<10)
		}
		if len(open) > 6 {
			k := r.IntN(len(open))
			open[k].f.Close()
			open = slices.Delete(open, k, k+1)
		}
		if err != nil {
			var no syscall.Errno
			errors.As(err, &no)
			out.Errors[no.Error()]++
			if !slices.Contains([]syscall.Errno{syscall.ESTALE, syscall.ENOENT, syscall.EIO}, no) {
				out.Wrong = err.Error()
				break
			}
		}
	}
	json.NewEncoder(os.Stdout).Encode(out)
}

const replacedFiles = 6

// TestOpenFilesAreOneVersion fails when what an open file reads is of two
// versions, however often files are replaced and deleted under their readers, by
// others of the same size and of another. What the server has mixed itself, as its
// answers show, is not the mount's.
func TestOpenFilesAreOneVersion(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"server 3.17", "S3"} {
		t.Run(kind, func(t *testing.T) {
			if soak == 0 {
				t.Parallel()
			}
			seed := seedOf(t)
			run, uri, put, remove := replaceable(t, kind)
			answers := &validated{}
			if kind != "S3" {
				p := proxyTo(t, uri)
				p.Break(nil, answers.look)
				uri = p.URL
			}
			r := rand.New(rand.NewPCG(seed, 5))
			var version atomic.Uint32
			replace := func(k int) {
				size := []int{1 << 20, 1 << 20, 1 << 20, 3 << 20, 160_000}[r.IntN(5)]
				put(fmt.Sprint("f", k), patchwork(version.Add(1), size))
			}
			for k := range replacedFiles {
				replace(k)
			}
			m := mountRaced(t, uri, impatient, "--metadata-ttl", "1s")
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(r.IntN(200)) * time.Millisecond):
					}
					if k := r.IntN(replacedFiles); r.IntN(20) == 0 {
						remove(fmt.Sprint("f", k))
					} else {
						replace(k)
					}
				}
			}()
			j := job{Seed: seed, For: length(6*time.Second, 0.05), Replaced: true}
			got := reference(t, j, []string{m.path("runs", run)}, 4, func(f found) bool { return f.Ops >= 50 && version.Load() >= 10 })
			close(stop)
			<-stopped
			n := 0
			for _, m := range got.Mixed {
				if !slices.ContainsFunc(m.Versions, answers.mixed) {
					n++
					t.Errorf("not of one version: %s", m.What)
				}
			}
			figure(t, "%d reads of %d versions, errors %v, not of one version: %d, and %d of what the server mixed", got.Ops, version.Load(), got.Errors, n, len(got.Mixed)-n)
			if got.Ops < 50 || version.Load() < 10 {
				t.Errorf("only %d reads of %d versions", got.Ops, version.Load())
			}
		})
	}
}

// validated looks at the answers of a server for those whose bytes are not of what
// their head tells of: MLflow 3 looks at a file's size and time, and opens it by
// name after that.
type validated struct {
	mu    sync.Mutex        // guards what follows
	of    map[string]uint32 // ETag to the version of the first bytes that came with it
	wrong map[uint32]bool   // versions that came with the size or ETag of another
}

// mixed tells whether the server has sent bytes of a version as another's.
func (s *validated) mixed(version uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrong[version]
}

// look is a [count.After].
func (s *validated) look(resp *http.Response) error {
	if !strings.HasPrefix(resp.Request.URL.Path, artifactsAPI+"/") || resp.StatusCode/100 != 2 {
		return nil
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(b), failing{err}))
	first, total := int64(0), resp.ContentLength
	if r := resp.Header.Get("Content-Range"); r != "" {
		var last int64
		if _, err := fmt.Sscanf(r, "bytes %d-%d/%d", &first, &last, &total); err != nil {
			return err
		}
	}
	at := (patch - first%patch) % patch // of the first piece that is whole
	if int64(len(b)) < at+patch {
		return nil
	}
	version, size := le.LittleEndian.Uint32(b[at:]), int64(le.LittleEndian.Uint32(b[at+4:]))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of, s.wrong = map[string]uint32{}, map[uint32]bool{}
	}
	etag := resp.Request.URL.Path + " " + resp.Header.Get("ETag")
	if told, ok := s.of[etag]; !ok {
		s.of[etag] = version
	} else if told != version {
		s.wrong[version] = true
	}
	if size != total {
		s.wrong[version] = true
	}
	return nil
}

// failing is a body that ends in an error, or with nil at its end.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, cmp.Or(f.err, io.EOF) }

// replaceable is a run whose files can be replaced, in one step, and removed. It
// goes on, in a store without validators.
func replaceable(t *testing.T, kind string) (run, uri string, put func(name string, b []byte), remove func(name string)) {
	t.Helper()
	if kind == "S3" {
		r := newRunningS3Run(t)
		dir := t.TempDir()
		return r.id, r.server.url(), func(name string, b []byte) {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, b, 0o644); err != nil {
				t.Error(err)
			}
			r.put(t, name, file)
		}, func(name string) { r.remove(t, name) }
	}
	s := shared.get(t, kind)
	run = newRun(t, s.uri, "0")
	dir := filepath.Join(s.server.artifacts(), "0", run, "artifacts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(s.server.dir, "aside-"+run)
	return run, s.uri, func(name string, b []byte) {
		if err := errors.Join(os.WriteFile(aside, b, 0o644), os.Rename(aside, filepath.Join(dir, name))); err != nil {
			t.Error(err)
		}
	}, func(name string) { os.Remove(filepath.Join(dir, name)) }
}
