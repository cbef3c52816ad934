package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// vitals are what a daemon must not gather.
type vitals struct{ fds, threads, goroutines, mib int }

func (m *mount) vitals() (v vitals) {
	proc := fmt.Sprintf("/proc/%d/", m.daemon())
	fds, _ := os.ReadDir(proc + "fd")
	threads, _ := os.ReadDir(proc + "task")
	status, _ := os.ReadFile(proc + "status")
	for l := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0])
			v.mib = kib >> 10
		}
	}
	v.fds, v.threads = len(fds), len(threads)
	metrics, _ := os.ReadFile(m.path(".mlflowfs", "metrics"))
	for l := range strings.Lines(string(metrics)) {
		if rest, ok := strings.CutPrefix(l, "go_goroutines "); ok {
			v.goroutines, _ = strconv.Atoi(strings.TrimSpace(rest))
		}
	}
	return v
}

// TestWorkLeavesNothingBehind fails when a mount gathers descriptors, threads,
// goroutines, memory or lines of its log while it works on a broken origin:
// rounds end with what the first one ended with.
func TestWorkLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	seed := seedOf(t)
	rounds, each := 2, 5*time.Second
	if soak > 0 {
		rounds, each = 10, length(0, 0.25)/11
	}
	o := newChaotic(t, "server 3.17", seed)
	m := mountAt(t, o.uri, impatient, "--metadata-ttl", "1s", "--cache-size", "24MiB", "--memory-limit", "128MiB")
	c := unleash(t, o.proxies[0], seed, 0.3, o.isBytes)
	var first, last vitals
	for round := range 1 + rounds {
		c.Begin(0.3)
		reference(t, job{Truth: o.truth, Seed: seed + uint64(round), For: each}, []string{m.path(o.run)}, 3, nil)
		c.Begin(0)
		if round == 0 {
			first = m.idle(o.proxies[0], 0)
		} else {
			last = m.idle(o.proxies[0], first.fds+4)
		}
	}
	figure(t, "after the first round %+v, after the last %+v", first, last)
	if last.fds > first.fds+4 || last.threads > first.threads+8 || first.goroutines == 0 || last.goroutines > first.goroutines+10 || last.mib > first.mib*3/2+30 {
		t.Errorf("after the first round %+v, after the last %+v", first, last)
	}
	if n := strings.Count(m.log.String(), "\n"); n > 3000 {
		t.Errorf("%d lines in the log", n)
	}
}

// idle are the vitals once what a reader leaves has gone: the connections, which
// the origin ends here, and not the minute after which the mount does, and what
// goes on for half a minute after the last reader. They are those of a second in
// which nothing became less, once no more than most descriptors are open (0: any
// number), or a minute is over.
func (m *mount) idle(o *count.Origin, most int) vitals {
	v, since := m.vitals(), time.Now()
	for end := time.Now().Add(time.Minute); (time.Since(since) < time.Second || most > 0 && v.fds > most) && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		o.CloseClientConnections()
		if now := m.vitals(); now.fds < v.fds || now.goroutines < v.goroutines {
			v, since = now, time.Now()
		}
	}
	return v
}

// TestHugeListingIsShown fails when a directory with a hundred thousand entries
// is not listed, or not looked into.
func TestHugeListingIsShown(t *testing.T) {
	t.Parallel()
	const n = 100_000
	e := newEngineFiles(t, map[string]int{"huge/00000001": 1000})
	e.Break(nil, func(r *http.Response) error {
		if !strings.HasSuffix(r.Request.URL.Query().Get("path"), "huge") {
			return nil
		}
		type file struct {
			Path string `json:"path"`
			Dir  bool   `json:"is_dir"`
			Size int    `json:"file_size"`
		}
		files := make([]file, n)
		for i := range files {
			files[i] = file{fmt.Sprintf("%08d", i), false, 1000}
		}
		b, err := json.Marshal(map[string]any{"files": files})
		r.Body = io.NopCloser(bytes.NewReader(b))
		r.ContentLength = int64(len(b))
		r.Header.Set("Content-Length", strconv.Itoa(len(b)))
		return err
	})
	m := mountAt(t, e.URL, nil, "--fill-limit", "0") // its siblings are not there
	huge := m.path("runs", e.run, "huge")
	begin := time.Now()
	out, err := output("find", huge, "-type", "f", "-printf", ".")
	if err != nil || len(out) != n {
		t.Errorf("%d of %d entries, %v", len(out), n, err)
	}
	if d := time.Since(begin); d > 30*time.Second {
		t.Errorf("it took %v", d)
	}
	got, err := os.ReadFile(filepath.Join(huge, "00000001"))
	want, _ := os.ReadFile(filepath.Join(e.dir, "huge", "00000001"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	t.Logf("%v, %+v", time.Since(begin), m.vitals())
}

// TestManyNamesTakeLittleMemory fails when names that a program looks at are
// kept: the kernel is asked to forget them. (Fifty thousand here, a million in a
// soak.)
func TestManyNamesTakeLittleMemory(t *testing.T) {
	t.Parallel()
	dirs, each := 10, 5000
	if soak > 0 {
		dirs = 200
	}
	e := newEngineFiles(t, map[string]int{"d00000/00000001": 1000})
	type file struct {
		Path string `json:"path"`
		Dir  bool   `json:"is_dir"`
		Size int    `json:"file_size"`
	}
	e.Break(nil, func(r *http.Response) error {
		q := r.Request.URL.Query()
		if !strings.HasSuffix(r.Request.URL.Path, "mlflow-artifacts/artifacts") && !q.Has("path") {
			return nil
		}
		at := filepath.Base(q.Get("path"))
		var files []file
		if strings.HasPrefix(at, "d") && len(at) == 6 {
			for i := range each {
				files = append(files, file{fmt.Sprintf("%08d", i), false, 1000})
			}
		} else {
			for i := range dirs {
				files = append(files, file{fmt.Sprintf("d%05d", i), true, 0})
			}
		}
		b, err := json.Marshal(map[string]any{"files": files})
		r.Body = io.NopCloser(bytes.NewReader(b))
		r.ContentLength = int64(len(b))
		r.Header.Set("Content-Length", strconv.Itoa(len(b)))
		return err
	})
	limit, most := "64MiB", 0 // one name for every 10 KiB: far fewer than there are
	if soak > 0 {
		limit = "512MiB"
	}
	m := mountAt(t, e.URL, nil, "--fill-limit", "0", "--memory-limit", limit)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				most = max(most, m.vitals().mib)
			}
		}
	}()
	out, err := output("find", m.path("runs", e.run), "-type", "f", "-printf", ".")
	if err != nil || len(out) != dirs*each {
		t.Errorf("%d of %d names, %v", len(out), dirs*each, err)
	}
	close(stop)
	<-stopped
	figure(t, "%d names: %d MiB at most, %+v", len(out), most, m.vitals())
	if most > 300 {
		t.Errorf("%d names took %d MiB", len(out), most)
	}
	bound := int64(64<<20) / (10 << 10)
	if soak > 0 {
		bound = 512 << 20 / (10 << 10)
	}
	waitFor(t, "the kernel keeps more names than the bound", 10*time.Second, func() bool { return m.status().FUSE.Names <= bound })
}
