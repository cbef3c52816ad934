package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// memory is a bucket in memory, with the keys given.
func memory(t *testing.T, keys ...string) *Bucket {
	t.Helper()
	b := memblob.OpenBucket(nil)
	t.Cleanup(func() { b.Close() })
	for _, k := range keys {
		if err := b.WriteAll(t.Context(), k, []byte("content of "+k), nil); err != nil {
			t.Fatal(err)
		}
	}
	return &Bucket{
		Bucket:     b,
		Settings:   rest.Settings{Silence: time.Minute},
		BeforeList: func(func(any) bool, string) error { return nil },
		Object:     func(o *blob.ListObject) (string, string) { return o.Key, fmt.Sprintf("%x", o.MD5) },
		BeforeRead: func(func(any) bool, string, string) error { return nil },
		Answer: func(r *blob.Reader) Answer {
			return Answer{Size: r.Size()}
		},
		Refusal: func(err error) (int, string, string) {
			if gcerrors.Code(err) == gcerrors.NotFound {
				return http.StatusNotFound, "NotFound", err.Error()
			}
			return 0, "", ""
		},
	}
}

func blobOf(b *Bucket, root string) *Blob {
	return NewBlob("mem://b/"+root, root, func(context.Context, bool) (*Bucket, error) { return b, nil })
}

// show gives a tree as lines.
func show(tree Tree) string {
	var out []string
	for dir, entries := range tree {
		out = append(out, dir+":")
		for _, e := range entries {
			out = append(out, fmt.Sprintf("%s: %s %d %v", dir, e.Name, e.Size, e.IsDir))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// endless is a bucket that always has one more object.
type endless struct {
	driver.Bucket
	listed int
}

func (e *endless) ListPaged(context.Context, *driver.ListOptions) (*driver.ListPage, error) {
	e.listed++
	return &driver.ListPage{Objects: []*driver.ListObject{{Key: fmt.Sprint("a/", e.listed)}}, NextPageToken: []byte("more")}, nil
}

func (e *endless) Close() error { return nil }

// TestListingThatNeverEndsIsEnded fails when a store that always has one more page
// keeps a listing, or a look-up, for ever, and grows the daemon.
func TestListingThatNeverEndsIsEnded(t *testing.T) {
	t.Parallel()
	store := &endless{}
	bucket := memory(t)
	bucket.Bucket = blob.NewBucket(store)
	t.Cleanup(func() { bucket.Close() })
	b := blobOf(bucket, "a")
	b.most = 3
	if _, err := b.List(t.Context(), ""); err == nil || store.listed != (1+b.most)*onePage { // one for all that is below it
		t.Errorf("a listing: %d objects, %v", store.listed, err)
	}
	store.listed = 0
	if _, err := b.Stat(t.Context(), "zz"); err == nil || store.listed != b.most*onePage {
		t.Errorf("a look-up: %d objects, %v", store.listed, err)
	}
}

// TestBucketIsShownAsDirectories fails when the keys of a bucket below a prefix do not
// list, stat and read as the files and directories that MLflow logged, or when keys
// beside the prefix are shown.
func TestBucketIsShownAsDirectories(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := blobOf(memory(t, "root/a", "root/d/b", "root/d/e/c", "root/d/marker/", "root/d/marker/x", "rootless", "other/x", "root/d-1"), "root")
	all, err := b.List(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	want := ":\n: a 17 false\n: d 0 true\n: d-1 19 false\nd/e:\nd/e: c 21 false\nd/marker:\nd/marker:  25 false\nd/marker: x 26 false\nd:\nd: b 19 false\nd: e 0 true\nd: marker 0 true"
	if got := show(all); got != want {
		t.Errorf("the tree is\n%s", got)
	}
	for p, isDir := range map[string]bool{"a": false, "d": true, "d/e/c": false, "d/marker": true, "d-1": false, "": true} {
		if e, err := b.Stat(ctx, p); err != nil || e.IsDir != isDir || (p != "" && e.Name != path.Base(p)) {
			t.Errorf("%s: %+v, %v", p, e, err)
		}
	}
	for _, p := range []string{"no", "d/e/c/x", "roo", "d/e/"} {
		if e, err := b.Stat(ctx, p); p != "d/e/" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %+v, %v", p, e, err)
		}
	}
	body, err := b.ReadRange(ctx, "d/e/c", 11, 4, "")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); string(got) != "root" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := b.ReadRange(ctx, "none", 0, 1, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if empty, err := blobOf(memory(t), "").List(ctx, ""); err != nil || show(empty) != ":" {
		t.Errorf("%s, %v", show(empty), err)
	}
}

// TestBigBucketIsListedOneDirectoryAtATime fails when the listing of a directory of
// more keys than a page holds asks for all that is below it, or leaves entries out.
func TestBigBucketIsListedOneDirectoryAtATime(t *testing.T) {
	t.Parallel()
	var keys []string
	for i := range 2 * onePage {
		keys = append(keys, fmt.Sprintf("root/%c/%05d", 'a'+i%3, i))
	}
	for i := range onePage + 7 {
		keys = append(keys, fmt.Sprintf("root/%05d", i))
	}
	b := blobOf(memory(t, keys...), "root")
	top, err := b.List(t.Context(), "")
	if err != nil || len(top) != 1 || len(top[""]) != onePage+7+3 {
		t.Errorf("%d directories, %d entries, %v", len(top), len(top[""]), err)
	}
	n := 0
	for _, d := range []string{"a", "b", "c"} {
		below, err := b.List(t.Context(), d)
		if err != nil {
			t.Error(err)
		}
		n += len(below[d])
	}
	if n != 2*onePage {
		t.Errorf("%d entries below", n)
	}
}

// FuzzKeysStayInTheirDirectory fails when some keys of a bucket make an entry that
// leads out of its directory, that no key stands for, or a directory without entries.
func FuzzKeysStayInTheirDirectory(f *testing.F) {
	f.Add("root//0/0\nroot/0/1")
	f.Add("root/a/b\nroot/../x\nroot//\nroot/./y\nroot/a")
	var log bytes.Buffer
	f.Fuzz(func(t *testing.T, keys string) {
		var objects []object
		for k := range strings.SplitSeq(keys, "\n") {
			objects = append(objects, object{key: k})
		}
		tree := plant("top", "root/", objects)
		for dir, entries := range tree {
			if path.Clean(dir) != dir || dir != "top" && !strings.HasPrefix(dir, "top/") {
				t.Errorf("%q leads to %q", keys, dir)
			}
			for _, e := range entries {
				if key := "root" + strings.TrimPrefix(dir, "top") + "/" + e.Name; !strings.Contains("\n"+keys, "\n"+key) {
					t.Errorf("%q: an entry %s of %s is invented", keys, e.Name, dir)
				}
			}
			shown, _ := Clean(logTo(&log), dir, entries)
			for _, e := range shown {
				if below, ok := tree[dir+"/"+e.Name]; e.IsDir && (!ok || below == nil) {
					t.Errorf("%q: %s/%s is a directory without entries", keys, dir, e.Name)
				}
			}
		}
	})
}

// TestOnlyWholeObjectSumsAreTaken fails when a header that is no checksum of the whole
// object is taken for one, so that good bytes are refused, or when a checksum is not
// seen, so that bad bytes are not found.
func TestOnlyWholeObjectSumsAreTaken(t *testing.T) {
	t.Parallel()
	etag := `"0cc175b9c0f1b6a831c399e269772661"`
	for name, c := range map[string]struct {
		header http.Header
		md5    bool
		crc    uint32
	}{
		"S3":           {http.Header{"X-Amz-Request-Id": {"1"}, "Etag": {etag}}, true, 0},
		"S3, AES":      {http.Header{"X-Amz-Request-Id": {"1"}, "Etag": {etag}, "X-Amz-Server-Side-Encryption": {"AES256"}}, true, 0},
		"S3, KMS":      {http.Header{"X-Amz-Request-Id": {"1"}, "Etag": {etag}, "X-Amz-Server-Side-Encryption": {"aws:kms"}}, false, 0},
		"S3, parts":    {http.Header{"X-Amz-Request-Id": {"1"}, "Etag": {`"0cc175b9c0f1b6a831c399e269772661-3"`}}, false, 0},
		"S3, CRC":      {http.Header{"X-Amz-Checksum-Type": {"FULL_OBJECT"}, "X-Amz-Checksum-Crc32c": {"4waSgw=="}}, false, 0xe3069283},
		"S3, part CRC": {http.Header{"X-Amz-Checksum-Type": {"COMPOSITE"}, "X-Amz-Checksum-Crc32c": {"4waSgw=="}}, false, 0},
		"GCS":          {http.Header{"X-Goog-Hash": {"crc32c=4waSgw==,md5=DMF1ucDxtqgxw5niaXcmYQ=="}}, true, 0xe3069283},
		"Azure":        {http.Header{"X-Ms-Blob-Content-Md5": {"DMF1ucDxtqgxw5niaXcmYQ=="}}, true, 0},
		"a web server": {http.Header{"Etag": {etag}}, false, 0},
		"nonsense":     {http.Header{"X-Goog-Hash": {"crc32c=x,md5=x,,="}}, false, 0},
	} {
		s := SumsOf(c.header)
		if (s.MD5 != nil) != c.md5 || (s.CRC32C != nil) != (c.crc != 0) || s.CRC32C != nil && *s.CRC32C != c.crc {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
