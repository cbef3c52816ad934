package test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// plant puts a file of size bytes on the disk of a seeded server, in the run
// `empty`, and gives its path in the mount. A sparse file costs nothing.
func plant(t *testing.T, s *seeded, name string, size int64, content io.Reader) (inMount string, onDisk string) {
	t.Helper()
	onDisk = filepath.Join(s.server.artifacts(), experimentOf(t, s), s.Empty, "artifacts", t.Name(), name)
	if err := os.MkdirAll(filepath.Dir(onDisk), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(onDisk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if content != nil {
		_, err = io.CopyN(f, content, size)
	} else {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(onDisk) })
	return filepath.Join("runs", s.Empty, t.Name(), name), onDisk
}

// text gives lines of about a KiB for ever, no two alike: MLflow 2 sends a body
// line by line.
func text() io.Reader { return &numbered{line: append(bytes.Repeat([]byte("0"), 1024), '\n')} }

type numbered struct {
	n    int
	line []byte
	rest []byte // of line
}

func (x *numbered) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(x.rest) == 0 {
			x.n++
			digits := strconv.Itoa(x.n * x.n)
			copy(x.line[len(x.line)-1-len(digits):], digits)
			x.rest = x.line
		}
		k := copy(p[n:], x.rest)
		x.rest, n = x.rest[k:], n+k
	}
	return n, nil
}

// TestSixteenReadersCostOneFile fails when 16 readers of one cold file cost the
// origin more than that file, once; or when reading it again costs anything.
func TestSixteenReadersCostOneFile(t *testing.T) {
	t.Parallel()
	for kind, size := range map[string]int64{"server 3.17": 64 << 20, "server 2.22": 24 << 20, presigned: 64 << 20} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := newBytesOf(t, kind)
			p, file, onDisk := b.counted, b.plant("cold.bin", size), b.onDisk("cold.bin")
			m := mountRaced(t, b.uri, nil)
			want := sumOf(t, onDisk)
			if _, err := read(m.path(filepath.Dir(file), "nothing")); err == nil {
				t.Fatal("a file that is not there was read")
			}
			p.Reset()
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					out, err := output("sha256sum", m.path(file))
					if err != nil || !strings.HasPrefix(string(out), want) {
						t.Errorf("%s, %v", out, err)
					}
				})
			}
			wg.Wait()
			requests, n := p.Reset()
			if n != size {
				t.Errorf("the origin sent %d bytes for a file of %d: %.3f times", n, size, float64(n)/float64(size))
			}
			if gets := count.Of(requests, "/cold.bin"); kind == "server 2.22" && gets != 1 {
				t.Errorf("%d requests for a file that comes as one stream", gets)
			}
			// Read again by another program, it costs nothing.
			before := m.cache()
			if _, err := read(m.path(file)); err != nil {
				t.Error(err)
			}
			if _, n := p.Reset(); n != 0 {
				t.Errorf("a second read cost %d bytes", n)
			}
			if did := m.cache().Since(before); did.Misses > 0 {
				t.Errorf("a second read: %+v", did)
			}
		})
	}
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestSmallReadOfALargeFileMovesLittle fails when reading 1 KiB of a file of 10 GiB
// moves more than a few MiB.
func TestSmallReadOfALargeFileMovesLittle(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	p := proxyTo(t, s.uri)
	file, onDisk := plant(t, s, "huge.bin", 10<<30, nil)
	mark, err := os.OpenFile(onDisk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mark.WriteAt([]byte("needle"), 7<<30+12345); err != nil {
		t.Fatal(err)
	}
	mark.Close()
	m := mountAt(t, p.URL, nil)
	p.Reset()
	got, err := output("dd", "if="+m.path(file), "bs=1024", "count=1", "iflag=skip_bytes", fmt.Sprint("skip=", 7<<30+12345))
	if err != nil || !bytes.HasPrefix(got, []byte("needle")) {
		t.Fatal(got, err)
	}
	if requests, n := p.Reset(); n > 4<<20 {
		t.Errorf("1 KiB of 10 GiB moved %d bytes:\n%s", n, strings.Join(requests, "\n"))
	}
}

// TestListingsCostOneRequestEach fails when ls -l, find, du or stat cost more than
// one listing for each directory, or when they read a file.
func TestListingsCostOneRequestEach(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"server 3.17", "server 2.22"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := shared.get(t, kind)
			p := proxyTo(t, s.uri)
			m := mountAt(t, p.URL, nil)
			for _, c := range []struct {
				what        string
				dirs        int    // listings of artifacts
				other       string // the requests that may stand beside them
				name        string
				args        []string
				linesWanted int
			}{
				{"ls -l of 300 files", 3, "runs/get logged-models/search server-info", "ls", []string{"-l", m.path("runs", s.Wide, "many")}, 301},
				{"ls -l of the run", 0, "", "ls", []string{"-l", m.path("runs", s.Wide)}, 7},
				{"find below 12 directories", 13, "", "find", []string{m.path("runs", s.Wide, "deep")}, 14},
				{"du of the same", 0, "", "du", []string{"-a", m.path("runs", s.Wide, "deep")}, 14},
				{"stat", 0, "", "stat", []string{m.path("runs", s.Wide, "many", "file-007.txt")}, 8},
			} {
				p.Reset()
				out, err := output(c.name, c.args...)
				if err != nil || len(lines(out)) < c.linesWanted {
					t.Errorf("%s: %d lines, %v", c.what, len(lines(out)), err)
				}
				requests, _ := p.Reset()
				listings := count.Of(requests, artifactsAPI+"?")
				if listings > c.dirs || len(requests) > listings+len(strings.Fields(c.other)) || count.Of(requests, artifactsAPI+"/") > 0 {
					t.Errorf("%s cost %d listings for %d directories:\n%s", c.what, listings, c.dirs, strings.Join(requests, "\n"))
				}
			}
			// A file's bytes are asked for when it is read, and not before.
			p.Reset()
			if out, err := output("ls", "-lR", m.path("models", "echo", "1")); err != nil || !strings.Contains(string(out), "MLmodel") {
				t.Error(string(out), err)
			}
			if requests, _ := p.Reset(); count.Of(requests, artifactsAPI+"/") > 0 {
				t.Errorf("ls -lR read files:\n%s", strings.Join(requests, "\n"))
			}
		})
	}
}

// TestManyRunsAreAllShown fails when ls runs/ does not show every run, newest first;
// when it costs more than one request for a page; or when a run beyond the first
// page does not open by its id.
func TestManyRunsAreAllShown(t *testing.T) {
	t.Parallel()
	const many = 450
	s := startServer(t, "mlflow3", nil)
	ids := map[string]bool{}
	var oldest string
	for i := range many {
		out := api(t, s.url(), "/api/2.0/mlflow/runs/create", map[string]any{"experiment_id": "0", "start_time": 1_700_000_000_000 + i/3})
		id := out["run"].(map[string]any)["info"].(map[string]any)["run_id"].(string)
		ids[id] = true
		if i == 0 {
			oldest = id
		}
	}
	p := proxyTo(t, s.url())
	m := mountAt(t, p.URL, nil)

	// A reader of a few entries costs a page, not three.
	p.Reset()
	if out, err := output("python3", "-c", `
import ctypes, os, sys
buf = ctypes.create_string_buffer(1024)
n = ctypes.CDLL(None).syscall(217, os.open(sys.argv[1], os.O_RDONLY), buf, 1024)  # getdents64
print(n)
`, m.path("runs")); err != nil || string(out) < "1" {
		t.Error(string(out), err)
	}
	if requests, _ := p.Reset(); count.Of(requests, "runs/search") != 1 {
		t.Errorf("a few entries cost:\n%s", strings.Join(requests, "\n"))
	}
	if out, err := output("stat", "-c", "%F", m.path("runs", oldest)); err != nil || string(out) != "directory\n" {
		t.Error(string(out), err)
	}
	if requests, _ := p.Reset(); count.Of(requests, "runs/search") != 0 || count.Of(requests, "runs/get") != 1 {
		t.Errorf("a run by its id cost:\n%s", strings.Join(requests, "\n"))
	}
	for _, cmd := range [][]string{
		{"ls", "-U", m.path("runs")}, {"ls", "-l", m.path("runs")},
		{"find", m.path("runs"), "-maxdepth", "1", "-mindepth", "1", "-printf", "%f\n"}, // names alone: into each run it would ask
	} {
		p.Reset()
		out, err := output(cmd[0], cmd[1:]...)
		found := map[string]bool{}
		for _, l := range lines(out) {
			if f := strings.Fields(l); len(f) > 0 && ids[f[len(f)-1]] {
				found[f[len(f)-1]] = true
			}
		}
		if len(found) != many || err != nil {
			t.Errorf("%v shows %d of %d runs, %v", cmd, len(found), many, err)
		}
		if requests, _ := p.Reset(); cmd[0] == "ls" && count.Of(requests, "runs/search") != 3 || count.Of(requests, "runs/get") > 0 {
			t.Errorf("%v cost:\n%s", cmd, strings.Join(requests, "\n"))
		}
	}
	if out, err := output("ls", "-U", m.path("experiments", "Default")); err != nil || len(lines(out)) != many+3 { // and runs.csv, traces and traces.jsonl
		t.Errorf("the experiment shows %d names for %d runs, %v", len(lines(out)), many, err)
	}
	newest, err := output("ls", "-U", m.path("runs"))
	if err != nil || lines(newest)[many-1] == "" {
		t.Fatal(err)
	}
	rank := map[string]int{}
	for i, id := range lines(newest) {
		rank[id] = i
	}
	if rank[oldest] < many-3 {
		t.Errorf("the oldest run is number %d of %d: not newest first", rank[oldest], many)
	}
}

// TestRunThatIsNotOverIsSeenAsItIs fails when an open shows an old content of a
// file of a run that is not over.
func TestRunThatIsNotOverIsSeenAsItIs(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	m := mountAt(t, s.uri, nil, "--metadata-ttl", "200ms")
	log := m.path("runs", s.Running, "log.txt")
	onDisk := filepath.Join(s.server.artifacts(), experimentOf(t, s), s.Running, "artifacts", "log.txt")
	for _, content := range []string{"so far", "no far", "so far and further", "short"} {
		if err := os.WriteFile(onDisk, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the mount still shows an old log, not "+content, 5e9, func() bool {
			got, err := read(log)
			return err == nil && string(got) == content
		})
	}
	if err := os.WriteFile(onDisk, []byte("so far"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestMovedAliasIsFollowed fails when an alias that has moved still leads to the old
// version after its lifetime.
func TestMovedAliasIsFollowed(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	m := mountAt(t, s.uri, nil, "--metadata-ttl", "300ms")
	move := func(version string) {
		t.Helper()
		api(t, s.uri, "/api/2.0/mlflow/registered-models/alias", map[string]any{"name": "echo", "alias": "mover", "version": version})
	}
	for _, v := range []string{"1", "2", "1"} {
		move(v)
		waitFor(t, "the alias does not lead to "+v, 5e9, func() bool {
			to, err := output("readlink", m.path("models", "echo@mover"))
			meta, merr := read(m.path("models", "echo@mover", "registered_model_meta"))
			return err == nil && merr == nil && string(to) == "echo/"+v+"\n" && strings.Contains(string(meta), "'"+v+"'")
		})
	}
}

// TestListingAsksForNoAttributes fails when ls asks each file for its access control list:
// where there can be none it is to be told that once.
func TestListingAsksForNoAttributes(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	m := mountAt(t, s.uri, nil, count.Logged...)
	out, err := output("ls", "-l", m.path("runs", s.Wide, "many"))
	if err != nil || len(lines(out)) < 300 {
		t.Fatal(len(lines(out)), err)
	}
	if n := strings.Count(m.log.String(), "XATTR n"); n > 4 {
		t.Errorf("%d requests for attributes", n)
	}
}
