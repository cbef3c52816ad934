package s3

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
	"github.com/mlflowfs/mlflowfs/test/anykey"
	"github.com/mlflowfs/mlflowfs/test/draw"
)

// shown is what the rule makes of a directory's keys: names to sizes, -1 for a
// directory, and how many entries can't be shown.
type shown struct {
	names map[string]int
	left  int
}

// rule is how keys are directories: what stands before a slash is a directory, and wins
// over a file of its name. What is no name of a file is left out, with all below it,
// and so is content that has no name, but not a file without content.
func rule(keys anykey.Bucket, prefix string) shown {
	files, dirs := map[string]int{}, map[string]bool{}
	s := shown{names: map[string]int{}}
	for k, content := range keys {
		rel, ok := strings.CutPrefix(k, prefix)
		if !ok {
			continue
		}
		name, _, isDir := strings.Cut(rel, "/")
		switch {
		case isDir:
			dirs[name] = true
		case rel == "" && content != "":
			s.left++
		case rel != "":
			files[name] = len(content)
		}
	}
	usable := func(name string) bool { return name != "" && name != "." && name != ".." && len(name) <= 255 }
	for name, size := range files {
		switch {
		case !usable(name) || dirs[name] && size > 0:
			s.left++
		case !dirs[name]:
			s.names[name] = size
		}
	}
	for name := range dirs {
		if usable(name) {
			s.names[name] = -1
		} else {
			s.left++
		}
	}
	return s
}

// someKeys makes keys, below a directory that is written in an odd way.
func someKeys(d draw.Draw) (keys anykey.Bucket, root string) {
	root = d.One("run", "a//run", "/run", "run/", "a/../run", "a\bb/run", "")
	keys = d.Keys(root, 60, true)
	if d.Odds(4) {
		draw.Page(keys, root)
	}
	return keys, root
}

// over gives the directory root of a bucket that holds keys.
func over(t *testing.T, keys anykey.Bucket, root string) *artifact.Blob {
	t.Helper()
	server := httptest.NewServer(keys)
	t.Cleanup(server.Close)
	env := map[string]string{"AWS_ENDPOINT_URL": server.URL, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull}
	d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: func(name string) string { return env[name] }}
	b, err := d.Open(t.Context(), "bkt")
	if err != nil {
		t.Fatal(err)
	}
	return artifact.NewBlob("s3://bkt/"+root, root, func(context.Context, bool) (*artifact.Bucket, error) { return b, nil })
}

// TestKeysAreShownAsTheyAreWritten fails when some keys of a bucket (with //, control
// characters, empty objects for directories, a file and a directory of one name) are
// listed, looked up or read in another way than the rule says: a directory that can't
// be entered, a file of other bytes, or content that is left out and not said.
func TestKeysAreShownAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	seed := uint64(17)
	if n, err := strconv.ParseUint(os.Getenv("MLFLOWFS_SEED"), 10, 64); err == nil {
		seed = n
	}
	for i := range uint64(25) {
		keys, root := someKeys(draw.New(seed, i))
		t.Run(fmt.Sprint(seed, "-", i), func(t *testing.T) {
			t.Parallel()
			walk(t, over(t, keys, root), keys, root, "")
		})
	}
}

// walk compares a directory, and those below it, with the rule.
func walk(t *testing.T, store *artifact.Blob, keys anykey.Bucket, root, dir string) {
	t.Helper()
	prefix := root
	if root != "" && !strings.HasSuffix(root, "/") {
		prefix += "/"
	}
	at := func(p string) string { return prefix + p }
	here := prefix
	if dir != "" {
		here = at(dir) + "/"
	}
	want := rule(keys, here)
	tree, err := store.List(t.Context(), dir)
	if err != nil {
		t.Fatalf("%q: %v", here, err)
	}
	var log bytes.Buffer
	entries, left := artifact.Clean(slog.New(slog.NewTextHandler(&log, nil)), dir, slices.Clone(tree[dir]))
	if len(left) != want.left || strings.Count(log.String(), "\n") != want.left {
		t.Errorf("%q: %d entries are left out, and %d should be: %v\n%s", here, len(left), want.left, left, &log)
	}
	if len(entries) != len(want.names) {
		t.Errorf("%q: %d entries %v, and %d should be: %v", here, len(entries), entries, len(want.names), want.names)
	}
	for _, e := range entries {
		p := path.Join(dir, e.Name)
		size, ok := want.names[e.Name]
		looked, err := store.Stat(t.Context(), p)
		if !ok || e.IsDir != (size < 0) || !e.IsDir && int(e.Size) != size || err != nil || looked.IsDir != e.IsDir || looked.Size != e.Size {
			t.Errorf("%q: %+v is looked up as %+v, %v, and should be %d", here, e, looked, err, size)
			continue
		}
		if e.IsDir {
			walk(t, store, keys, root, p)
			continue
		}
		body, err := store.ReadRange(t.Context(), p, 0, max(e.Size, 1), e.Version)
		if err != nil {
			if e.Size > 0 {
				t.Errorf("%q: %v", at(p), err)
			}
			continue
		}
		got, err := io.ReadAll(body)
		if body.Close(); string(got) != keys[at(p)] || err != nil {
			t.Errorf("%q is read as %q, %v", at(p), got, err)
		}
	}
	if _, err := store.Stat(t.Context(), path.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%q: %v", cmp.Or(dir, "."), err)
	}
}
