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
)

// vitals are what a daemon must not gather.
type vitals struct{ fds, threads, goroutines, mib int }

func (m *mount) vitals() (v vitals) {
	proc := fmt.Sprintf("/proc/%d/", m.cmd.Process.Pid)
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

// A day in miniature: rounds of work on a broken origin end where they began.
// (Two rounds of 15 s here; MLFLOWFS_TEST_SEEDS has 30 minutes.)
func TestSoak(t *testing.T) {
	rounds, each := 2, 15*time.Second
	if long() {
		rounds, each = 15, 2*time.Minute
	}
	seed := uint64(time.Now().Unix())
	o := newChaotic(t, "3.17", seed)
	m := mountShipped(t, o.uri, impatient,
		"--metadata-ttl", "1s", "--cache-size", "24MiB", "--memory-limit", "128MiB")
	mounted := m.path("runs", o.run)
	c := unleash(t, o.proxies[0], seed, 0.3, o.artifacts)
	var first vitals
	idle := func() (v vitals) { // what lingers after the last reader has gone
		best := m.vitals()
		for end := time.Now().Add(100 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
			if v = m.vitals(); v.fds < best.fds {
				best = v
			}
			if first.fds > 0 && best.fds <= first.fds+4 {
				break
			}
			if first.fds == 0 && time.Until(end) < 35*time.Second {
				break // 60 s and a little: the connections have gone
			}
		}
		return best
	}
	for range 1 + rounds {
		reference(t, []string{mounted}, o.truth, seed, 3, 1_000_000, each, false)
		if first.fds == 0 {
			first = idle()
		}
		seed++
	}
	last := idle()
	t.Logf("after the first round %+v, after the last %+v", first, last)
	if last.fds > first.fds+4 || last.threads > first.threads+8 || first.goroutines == 0 || last.goroutines > first.goroutines+10 || last.mib > first.mib*3/2+30 {
		t.Errorf("after the first round %+v, after the last %+v", first, last)
	}
	if n := strings.Count(m.log.String(), "\n"); n > 3000 {
		t.Errorf("%d lines in the log", n)
	}
	c.calm()
}

// A directory with a hundred thousand entries is listed, and looked into.
func TestHugeListing(t *testing.T) {
	const n = 100_000
	e := newEngineFiles(t, map[string]int{"huge/00000001": 1000})
	e.faults(nil, func(r *http.Response) error {
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
	m := mountShipped(t, e.URL, nil, "--fill-limit", "0") // its siblings are not there
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

// A million names that a program looks at are not kept: the kernel is asked to
// forget them. (A hundred thousand here; MLFLOWFS_TEST_SEEDS has a million.)
func TestMillionNames(t *testing.T) {
	dirs, each := 20, 5000
	if long() {
		dirs = 200
	}
	e := newEngineFiles(t, map[string]int{"d00000/00000001": 1000})
	type file struct {
		Path string `json:"path"`
		Dir  bool   `json:"is_dir"`
		Size int    `json:"file_size"`
	}
	e.faults(nil, func(r *http.Response) error {
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
	// As on a machine that has less memory than this one.
	m := mountShipped(t, e.URL, nil, "--fill-limit", "0", "--memory-limit", "512MiB")
	most, stop, stopped := 0, make(chan struct{}), make(chan struct{})
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
	t.Logf("%d names: %d MiB at most, %+v", len(out), most, m.vitals())
	if most > 300 {
		t.Errorf("%d names took %d MiB", len(out), most)
	}
}
