package resolve

import "testing"

// TestStorageURIsAreReadAsTheyAreWritten fails when a // of a storage URI, which is a
// part of an object's key, is taken for a slash, or when a path is decoded where MLflow's
// client takes it as it is, or the other way round.
func TestStorageURIsAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ scheme, path, key string }{
		{"s3", "a//b%20c", "a//b%20c"},
		{"wasbs", "a%20b", "a%20b"},
		{"gs", "/a", "/a"},
		{"abfss", "a%20b//c", "a b//c"},
		{"abfss", "%2Fa%252F", "a%2F"}, // once, and no slash comes first
		{"abfss", "100%_%C3%A9%4", "100%_é%4"},
	} {
		if got := keyOf(c.scheme, c.path); got != c.key {
			t.Errorf("%s, %q: %q", c.scheme, c.path, got)
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
