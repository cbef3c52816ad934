package fault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestEachKindOfFaultComes fails when the machine that breaks an origin leaves out
// one of its kinds of faults: then no test that uses it holds against that kind.
func TestEachKindOfFaultComes(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789"), 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "f", time.Unix(1, 0), bytes.NewReader(content))
	}))
	defer server.Close()
	o, err := count.NewOrigin(server.URL, "/bytes/")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Stop()
	c := Unleash(o, 1, 1, func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/bytes/") })
	defer c.Stop()
	missing := func() (out []string) {
		for _, k := range Kinds {
			if c.Met.Of(k) == 0 {
				out = append(out, k)
			}
		}
		return out
	}
	client := &http.Client{Timeout: 50 * time.Millisecond}
	for i := 0; i < 2000 && len(missing()) > 0; i++ {
		path := "/bytes/f"
		switch i % 5 {
		case 0:
			path = "/other"
		case 1:
			path += fmt.Sprint("?X-Amz-Signature=", i)
		}
		req, err := http.NewRequest(http.MethodGet, o.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", "bytes=10-2000")
		if resp, err := client.Do(req); err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	if m := missing(); len(m) > 0 {
		t.Errorf("no fault of the kinds %v", m)
	}
}

// newDisk is a disk with a file of each kind.
func newDisk(t *testing.T) (d *Disk, files map[string]string) {
	t.Helper()
	dir, below := t.TempDir(), t.TempDir()
	long := strings.Repeat("0123456789abcdef", 4)[2:]
	files = map[string]string{"data": "v2/ab/" + long + ".0123456789abcdef", "record": "v2/ab/" + long + ".rec", "pin": "v2/pins/" + long, "answer": "v2/answers/" + long, "usage": "v2/usage", "index": "v2/index", "lock": "v2/lock"}
	for kind, name := range files {
		files[kind] = filepath.Join(dir, name)
		p := filepath.Join(below, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, make([]byte, 8192), 0o644)); err != nil {
			t.Fatal(err)
		}
		if got := KindOf(name); got != kind {
			t.Errorf("%s is taken for a file of the kind %q", name, got)
		}
	}
	d, err := NewDisk(dir, below)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	return d, files
}

// use does an operation on a file, with the system calls that lead to it.
var use = map[string]func(name string) error{
	"lookup": func(name string) error { _, err := os.Lstat(name); return err },
	"getattr": func(name string) error {
		return withFile(name, func(f *os.File) error { _, err := f.Stat(); return err })
	},
	"setattr": func(name string) error { return os.Truncate(name, 4096) },
	"open":    func(name string) error { f, err := os.Open(name); f.Close(); return err },
	"create":  func(name string) error { os.Remove(name); f, err := os.Create(name); f.Close(); return err },
	"unlink":  os.Remove,
	"rename": func(name string) error {
		return errors.Join(os.WriteFile(filepath.Dir(filepath.Dir(name))+"/x", nil, 0o644), os.Rename(filepath.Dir(filepath.Dir(name))+"/x", name))
	},
	"read": func(name string) error {
		return withFile(name, func(f *os.File) error { _, err := f.ReadAt(make([]byte, 10), 0); return err })
	},
	"write": func(name string) error {
		return withFile(name, func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 5); return err })
	},
	"allocate": func(name string) error {
		return withFile(name, func(f *os.File) error { return syscall.Fallocate(int(f.Fd()), 0, 0, 16384) })
	},
	"fsync": func(name string) error { return withFile(name, (*os.File).Sync) },
	"flush": func(name string) error {
		f, err := os.Open(name)
		return errors.Join(err, f.Close())
	},
}

func withFile(name string, do func(*os.File) error) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(f)
}

// TestEachOperationOfADiskFails fails when a rule does not have an operation on a
// kind of file fail with its errno, or has another one fail.
func TestEachOperationOfADiskFails(t *testing.T) {
	t.Parallel()
	for op, do := range use {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			d, files := newDisk(t)
			for kind, name := range files {
				for _, e := range []syscall.Errno{syscall.EIO, syscall.EDQUOT, syscall.EMFILE} {
					d.Met.Reset()
					d.Set(On(e, op, kind))
					if err := do(name); !errors.Is(err, e) {
						t.Errorf("%s of %s: %v, and not %v", op, kind, err, e)
					}
					if d.Met.Of(op+" "+kind) == 0 {
						t.Errorf("%s of %s: met were %s", op, kind, &d.Met)
					}
					d.Set(On(e, op, "none such"))
					if err := do(name); err != nil {
						t.Errorf("%s of %s failed by another kind's rule: %v", op, kind, err)
					}
					if op == "unlink" { // it is gone
						d.Set(nil)
						if err := os.WriteFile(name, make([]byte, 8192), 0o644); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		})
	}
}

// TestDiskHangsUntilItIsLetGo fails when an operation does not wait for its rule, or
// waits on.
func TestDiskHangsUntilItIsLetGo(t *testing.T) {
	t.Parallel()
	d, files := newDisk(t)
	let := make(chan struct{})
	d.Set(Hanging(let, "read", "data"))
	done := make(chan error)
	go func() {
		_, err := exec.Command("cat", files["data"]).Output()
		done <- err
	}()
	for d.Met.Of("read data") == 0 {
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-done:
		t.Fatal("it did not wait", err)
	default:
	}
	close(let)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestLimitedProcessMeetsItsLimits fails when a process may open more files than it
// was allowed, or write larger ones.
func TestLimitedProcessMeetsItsLimits(t *testing.T) {
	t.Parallel()
	for script, limit := range map[string]Limit{
		"for i in $(seq 3 60); do eval \"exec $i</dev/null\" || exit 1; done": {Resource: "nofile", Most: 32},
		"head -c 100000 /dev/zero >big":                                       {Resource: "fsize", Most: 4096},
	} {
		c := Limited(exec.Command("bash", "-c", script), limit)
		c.Dir = t.TempDir()
		if out, err := c.CombinedOutput(); err == nil {
			t.Errorf("%v was not met: %s", limit, out)
		}
		free := exec.Command("bash", "-c", script)
		free.Dir = t.TempDir()
		if out, err := free.CombinedOutput(); err != nil {
			t.Errorf("without %v: %s, %v", limit, out, err)
		}
	}
}

// TestQuotaHoldsWhatIsBeyond fails when more than a quota passes before it is
// opened, or not all after that.
func TestQuotaHoldsWhatIsBeyond(t *testing.T) {
	t.Parallel()
	const size, part = 4 << 20, 1 << 20
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, size)) }))
	defer server.Close()
	o, err := count.NewOrigin(server.URL, "/")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Stop()
	q := NewQuota(part)
	o.Break(nil, func(r *http.Response) error { q.Hold(r); return nil })
	got := make(chan int64)
	go func() {
		resp, err := http.Get(o.URL)
		if err != nil {
			got <- -1
			return
		}
		defer resp.Body.Close()
		n, _ := io.Copy(io.Discard, resp.Body)
		got <- n
	}()
	<-q.Spent()
	if n := o.Bytes(); n < part || n > part+1<<20 {
		t.Errorf("%d bytes passed of a quota of %d", n, part)
	}
	q.Open()
	if n := <-got; n != size {
		t.Errorf("%d bytes came in the end", n)
	}
}
