package test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestReplacedInItsStoreIsStale fails when a file that is replaced in its store
// under a reader, by one of the same size, gives mixed bytes, or when the next
// open does not see the new content.
func TestReplacedInItsStoreIsStale(t *testing.T) {
	t.Parallel()
	const size = 48 << 20
	o := theObjects(t)
	old := fileOf(t, size)
	b, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] ^= 1
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	if err := os.WriteFile(fresh, b, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		origin string
		env    []string
		flags  []string
	}{
		{"s3", s3Env(o.s3), nil},
		{"s3", nil, []string{"--artifact-access", "presigned"}},
		{"gs", o.env(), nil},
		{"wasbs", o.env(), nil},
		{"path", nil, nil},
	} {
		t.Run(c.origin+strings.Join(c.flags, " "), func(t *testing.T) {
			t.Parallel()
			or := originAt(t, c.origin)
			name := filepath.Base(t.TempDir()) + ".bin"
			put := func(file string) {
				t.Helper()
				if c.origin != "path" {
					_, key, _ := strings.Cut(or.URI, "/own/")
					o.put(t, c.origin, "own/"+key+"/pinned/"+name, file)
					return
				}
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				at := filepath.Join(or.URI, "pinned", name)
				if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(at, b, 0o644); err != nil { // in place: the same inode
					t.Fatal(err)
				}
			}
			put(old)
			m := mountAt(t, or.server.url(), join(c.env, fast), c.flags...)
			path := m.path("runs", or.Run, "pinned", name)
			reader := exec.Command("python3", "-c", `
import os, sys
truth = open(sys.argv[2], "rb").read()
fd = os.open(sys.argv[1], os.O_RDONLY)
assert os.pread(fd, 4096, 0) == truth[:4096]
print("read", flush=True)
sys.stdin.readline()
try:
    got = os.pread(fd, 4096, 40 << 20)
    print("old" if got == truth[40 << 20:(40 << 20) + 4096] else "MIXED")
except OSError as e:
    print(e.strerror)
`, path, old)
			in, err := reader.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := reader.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			reader.Stderr = os.Stderr
			if err := reader.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(out)
			if l, err := lines.ReadString('\n'); l != "read\n" || err != nil {
				t.Fatal(l, err, m.log)
			}
			put(fresh)
			io.WriteString(in, "go\n")
			if l, err := lines.ReadString('\n'); l != "Stale file handle\n" || err != nil {
				t.Errorf("after it was replaced: %q, %v\n%s", l, err, m.log)
			}
			reader.Wait()
			got, err := output("sha256sum", path)
			if err != nil || !strings.HasPrefix(string(got), sumOf(t, fresh)) {
				t.Errorf("the next open: %s, %v", got, err)
			}
		})
	}
}

// TestFindCostsOneRequest fails when the tree of a model on S3 costs more than
// one listing where it fits in a page, or is not all there where it does not.
func TestFindCostsOneRequest(t *testing.T) {
	t.Parallel()
	or, o := originAt(t, "s3"), theObjects(t)
	store := s3Proxy(t)
	dir := filepath.Join(o.dir, "s3", bucket, "own")
	for name, files := range map[string]int{"small": 990, "large": 2500} {
		for i := range files {
			f := filepath.Join(dir, "find-"+name, "d"+string(rune('a'+i%20)), strings.Repeat("s/", i%3), "f"+strings.Repeat("x", i/60))
			if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f, []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	uri := "s3://" + bucket + "/own/find-"
	m := mountAt(t, or.server.url(), s3Env(store.Addr()), "--mount-uris", uri+"small,"+uri+"large")
	for name, most := range map[string]int{"small": 1, "large": 100} {
		want, err := output("find", filepath.Join(o.dir, "s3", bucket, "own/find-"+name), "-mindepth", "1", "-printf", "%P %s %y\n")
		if err != nil {
			t.Fatal(err)
		}
		store.Reset()
		got, err := output("find", m.path("uri/s3", bucket, "own/find-"+name), "-mindepth", "1", "-printf", "%P %s %y\n")
		if err != nil {
			t.Error(err)
		}
		requests, _ := store.Reset()
		a, b := sortedFiles(want), sortedFiles(got)
		if a != b || len(requests) > most {
			t.Errorf("%s: %d requests; the same tree: %v", name, len(requests), a == b)
		}
		if out, err := output("find", m.path("uri/s3", bucket, "own/find-"+name), "-type", "f", "-size", "0"); err != nil || len(out) > 0 {
			t.Error(string(out), err)
		}
		if again, _ := store.Reset(); len(again) > 0 && name == "small" {
			t.Errorf("a second find cost %v", again)
		}
	}
}

// sortedFiles sorts the lines of find; a directory's size is its file
// system's.
func sortedFiles(found []byte) string {
	var out []string
	for _, l := range lines(found) {
		f := strings.Fields(l)
		if f[2] == "d" {
			f[1] = "-"
		}
		out = append(out, strings.Join(f, " "))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}
