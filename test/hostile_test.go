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
)

// changeJSON has an answer's document changed.
func changeJSON(r *http.Response, change func(doc map[string]any)) error {
	var doc map[string]any
	if err := json.NewDecoder(r.Body).Decode(&doc); err != nil {
		return err
	}
	change(doc)
	b, err := json.Marshal(doc)
	r.Body = io.NopCloser(bytes.NewReader(b))
	r.ContentLength = int64(len(b))
	r.Header.Set("Content-Length", strconv.Itoa(len(b)))
	return err
}

// more appends n things to a list of a document.
func more(doc map[string]any, list string, n int, thing func(i int) any) {
	all, _ := doc[list].([]any)
	for i := range n {
		all = append(all, thing(i))
	}
	doc[list] = all
}

// TestHostileServerFillsNoLog fails when a server that sends thousands of names that
// can't be shown (of artifacts, runs, models), or files that can't be read, has a
// line in the log for each; or when it is not said how many there were.
func TestHostileServerFillsNoLog(t *testing.T) {
	t.Parallel()
	const n = 3000
	e := newEngineFiles(t, map[string]int{"d/good": 1000})
	e.Break(func(w http.ResponseWriter, r *http.Request) bool {
		if isArtifact(r) && strings.Contains(r.URL.Path, "/missing") {
			http.Error(w, strings.Repeat("no such thing ", 1000), http.StatusNotFound)
			return true
		}
		return false
	}, func(r *http.Response) error {
		type m = map[string]any
		switch path := r.Request.URL.Path; {
		case strings.HasSuffix(path, "/runs/search"):
			return changeJSON(r, func(doc m) {
				more(doc, "runs", n, func(i int) any { return m{"info": m{"run_id": fmt.Sprint("../", i), "experiment_id": "0"}} })
			})
		case strings.HasSuffix(path, "/registered-models/search"):
			return changeJSON(r, func(doc m) {
				more(doc, "registered_models", n, func(i int) any { return m{"name": fmt.Sprint(i, strings.Repeat("m", 300))} })
			})
		case strings.HasSuffix(r.Request.URL.Query().Get("path"), "/d"):
			return changeJSON(r, func(doc m) {
				more(doc, "files", n, func(i int) any { return m{"path": fmt.Sprint("a/", i), "file_size": 1} })
				more(doc, "files", 300, func(i int) any { return m{"path": fmt.Sprint("missing", i), "file_size": 1} })
			})
		}
		return nil
	})
	m := mountAt(t, e.URL, fast)
	for _, dir := range []string{"runs", "models"} {
		if _, err := output("ls", m.path(dir)); err != nil {
			t.Error(err)
		}
	}
	d := m.path("runs", e.run, "d")
	output("sh", "-c", `cat "$1"/missing*`, "sh", d)
	e.same(t, m, "d/good")
	m.stop() // which counts what was left out
	log := m.log.String()
	if got := strings.Count(log, "\n"); got > 200 || len(log) > 200<<10 {
		t.Errorf("%d lines, %d bytes:\n%s", got, len(log), tail(log))
	}
	for _, like := range []string{"has a slash in its name", "its name is malformed", "failed"} {
		if !strings.Contains(log, like+`" lines=`) {
			t.Errorf("it is not said how many lines like %q there were:\n%s", like, tail(log))
		}
	}
}

// TestSizeThatNoFileHasIsItsFilesError fails when a size that no file can have, in a
// listing, ends the daemon, takes the listing or another file with it, or is not
// said, or said again and again.
func TestSizeThatNoFileHasIsItsFilesError(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"d/good": 300_000})
	type m = map[string]any
	shown := map[string]string{"over": fmt.Sprint(1<<50 + 1), "memory": fmt.Sprint(1 << 54), "most": fmt.Sprint(1<<63 - 1)}
	left := map[string]any{"negative": -1, "least": json.Number("-9223372036854775808"), "more": json.Number("9223372036854775808"), "word": "x", "list": []int{1}}
	e.Break(nil, func(r *http.Response) error {
		if !strings.HasSuffix(r.Request.URL.Query().Get("path"), "/d") {
			return nil
		}
		return changeJSON(r, func(doc m) {
			files := doc["files"].([]any)
			for name, size := range shown {
				files = append(files, m{"path": name, "file_size": json.Number(size)})
			}
			for name, size := range left {
				files = append(files, m{"path": name, "file_size": size})
			}
			doc["files"] = files
		})
	})
	mnt := mountAt(t, e.URL, fast)
	dir := mnt.path("runs", e.run, "d")
	for range 3 {
		out, err := output("ls", "-l", dir)
		if err != nil || len(lines(out)) != 2+len(shown) { // the sum, the good one, and these
			t.Errorf("%s, %v", out, err)
		}
		for name, size := range shown {
			if st, err := os.Stat(filepath.Join(dir, name)); err != nil || fmt.Sprint(st.Size()) != size {
				t.Errorf("%s: %v, %v", name, st, err)
			}
			if b, err := read(filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), "File too large") {
				t.Errorf("%s: %d bytes, %v", name, len(b), err)
			}
		}
		e.same(t, mnt, "d/good")
	}
	log := mnt.log.String()
	for name := range shown {
		if n := strings.Count(log, "path=/runs/"+e.run+"/d/"+name+" "); n != 1 {
			t.Errorf("%s is said %d times:\n%s", name, n, tail(log))
		}
	}
	for name := range left {
		if n := strings.Count(log, " name="+name+"\n"); n != 1 {
			t.Errorf("%s is said %d times:\n%s", name, n, tail(log))
		}
	}
}

// TestLogNobodyReadsHangsNoRead fails when reads wait for who reads the daemon's
// standard error: a parent that does not, or a terminal that is stopped.
func TestLogNobodyReadsHangsNoRead(t *testing.T) {
	t.Parallel()
	const size = 100_000
	e := newEngineFiles(t, map[string]int{"a": size})
	m := mountAt(t, e.URL, nil, "--log-level", "debug", "--no-passthrough")
	defer m.log.Stop()() // who reads it, waits
	// Two lines for each read fill a pipe ten times over.
	out, err := output("timeout", "30", "python3", "-c", `
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for i in range(3000):
    assert len(os.pread(fd, 4096, 4096 * (i % 20))) == 4096
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
print("ok")
`, m.path("runs", e.run, "a"))
	if err != nil || string(out) != "ok\n" {
		t.Errorf("%s, %v", out, err)
	}
}
