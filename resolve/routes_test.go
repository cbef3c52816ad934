package resolve

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// memory is a resolver that has a bucket in memory behind each scheme of object stores.
func memory(t *testing.T) (*Resolver, *blob.Bucket) {
	t.Helper()
	r, b := resolver(t, ""), memblob.OpenBucket(nil)
	t.Cleanup(func() { b.Close() })
	for _, scheme := range []string{"s3", "gs", "wasbs", "abfss"} {
		r.opt.Buckets[scheme] = func(context.Context, string) (*artifact.Bucket, error) {
			return &artifact.Bucket{
				Bucket: b, Settings: rest.Settings{Silence: time.Minute},
				BeforeList: func(func(any) bool, string) error { return nil },
				Object:     func(o *blob.ListObject) (string, string) { return o.Key, "" },
			}, nil
		}
	}
	return r, b
}

// TestStorageURIsAreReadAsTheyAreWritten fails when a // of a storage URI, which is a
// part of an object's key, is taken for a slash, or when a path is decoded where MLflow's
// client takes it as it is, or the other way round.
func TestStorageURIsAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	r, b := memory(t)
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

// heldRun is a tracking server that has one.
type heldRun struct {
	meta.Tracking
	run *meta.Run
}

func (s heldRun) Run(context.Context, string) (*meta.Run, error) { return s.run, nil }

// TestQueryOfAnArtifactRootIsNoKey fails when a run of an experiment whose artifact
// location has a query or a fragment, which MLflow puts behind the run's own path and
// its repositories pass over, is shown empty; when a version of a model of that run is
// not known to lie in it; or when an object whose own name holds a ? or a # can't be
// named.
func TestQueryOfAnArtifactRootIsNoKey(t *testing.T) {
	t.Parallel()
	r, b := memory(t)
	for _, key := range []string{"a/R/artifacts/f", "a/R/artifacts/what?.txt", "a/R/artifacts/d#1/g"} {
		if err := b.WriteAll(t.Context(), key, []byte("x"), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, uri := range []string{"s3://b/a/R/artifacts?b#c", "gs://b/a/R/artifacts#b?c/../d", "wasbs://c@acc/a/R/artifacts?sv=1&sig=s3cret", "abfss://c@acc/a/R/artifacts?b"} {
		o, err := r.at(t.Context(), rootOf(uri, artifact.Door{}))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"f", "what?.txt", "d#1"} {
			if _, err := r.Lookup(t.Context(), &o, name); err != nil {
				t.Errorf("%s of %s: %v", name, uri, err)
			}
		}
		if f, err := r.Resolve(t.Context(), uri); err != nil || f.Dir == nil {
			t.Errorf("%s: %+v, %v", uri, f, err)
		}
	}
	for uri, dir := range map[string]bool{"s3://b/a/R/artifacts/what?.txt": false, "s3://b/a/R/artifacts/f?x=1": false, "s3://b/a/R/artifacts/d#1": true} {
		if f, err := r.Resolve(t.Context(), uri); err != nil || (f.Dir != nil) != dir {
			t.Errorf("%s: %+v, %v", uri, f, err)
		}
	}
	if _, err := r.Resolve(t.Context(), "s3://b/a/R/artifacts/none?x=1"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	run := &meta.Run{ID: strings.Repeat("a", 32), ArtifactURI: "dbfs:/a/R?b#c"}
	r.tracking = heldRun{run: run}
	r.opt.Client = resolver(t, "http://h").opt.Client
	if d := r.door(t.Context(), &meta.Version{RunID: run.ID, URI: "dbfs:/a/R/model?b#c"}); d.Dir != "model" {
		t.Errorf("the version lies at %+v", d)
	}
}
