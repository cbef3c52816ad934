package resolve

import (
	"context"
	"slices"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestStorageURIsAreReadAsTheyAreWritten fails when a // of a storage URI, which is a
// part of an object's key, is taken for a slash, or when a path is decoded where MLflow's
// client takes it as it is, or the other way round.
func TestStorageURIsAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	r := resolver(t, "")
	b := memblob.OpenBucket(nil)
	t.Cleanup(func() { b.Close() })
	open := func(context.Context, string) (*artifact.Bucket, error) {
		return &artifact.Bucket{
			Bucket: b, Settings: rest.Settings{Silence: time.Minute},
			BeforeList: func(func(any) bool, string) error { return nil },
			Object:     func(o *blob.ListObject) (string, string) { return o.Key, "" },
		}, nil
	}
	for _, scheme := range []string{"s3", "gs", "wasbs", "abfss"} {
		r.opt.Buckets[scheme] = open
	}
	for uri, prefix := range map[string]string{
		"s3://b/a//b%20c":            "a//b%20c/",
		"s3://b/a/":                  "a/",
		"s3://b":                     "",
		"gs://b//a":                  "/a/",
		"wasbs://c@acc/a%20b":        "a%20b/",
		"abfss://c@acc/a%20b//c":     "a b//c/",
		"abfss://c@acc/%2Fa%252F":    "a%2F/", // once, and no slash comes first
		"abfss://c@acc/100%_%C3%A9%": "100%_é%/",
	} {
		if err := b.WriteAll(t.Context(), prefix+"f of "+uri[:2], []byte("x"), nil); err != nil {
			t.Fatal(err)
		}
		store, err := r.store(t.Context(), place{uri: uri})
		if err != nil {
			t.Fatal(err)
		}
		tree, err := store.List(t.Context(), "")
		if err != nil || !slices.ContainsFunc(tree[""], func(e artifact.Entry) bool { return e.Name == "f of "+uri[:2] }) {
			t.Errorf("%s is not the directory %q: %v, %v", uri, prefix, tree, err)
		}
	}
	for _, c := range []struct{ outer, inner, path string }{
		{"s3://b/a", "s3://b/a/x/y", "x/y"},
		{"s3://b/a/", "s3://b/a/x/", "x"},
		{"s3://b/a", "s3://b/a", ""},
	} {
		if got, ok := relative(c.outer, c.inner); !ok || got != c.path {
			t.Errorf("%s in %s: %q, %v", c.inner, c.outer, got, ok)
		}
	}
	for _, inner := range []string{"s3://b/a//x", "s3://b/ab", "s3://b"} {
		if got, ok := relative("s3://b/a", inner); ok {
			t.Errorf("%s: %q", inner, got)
		}
	}
	for _, c := range []struct{ uri, dir, name string }{
		{"s3://b/a//f", "s3://b/a//", "f"},
		{"s3://b//f", "s3://b//", "f"},
		{"s3://b/f/", "s3://b/", "f"},
	} {
		if dir, name := split(c.uri); dir != c.dir || name != c.name {
			t.Errorf("%s: %q, %q", c.uri, dir, name)
		}
	}
}
