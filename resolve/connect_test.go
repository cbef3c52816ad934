package resolve

import (
	"context"
	"fmt"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

// TestLikelyBucketsAreThoseThatMayBeOpened fails when a mount connects to a bucket that its
// user's settings keep it from, to more than a few, or twice within a minute; or when what
// stands behind a server's ? or # is taken for a part of a host.
func TestLikelyBucketsAreThoseThatMayBeOpened(t *testing.T) {
	none := func(context.Context, string) (*artifact.Bucket, error) { return nil, context.Canceled }
	open := map[string]artifact.OpenBucket{"s3": none, "r2": none}
	some := []string{"s3://first/x", "s3://second/y", "s3://first/z", "s3://third"}
	for name, c := range map[string]struct {
		opt  Options
		uris []string
		want []string
	}{
		"the first two":    {Options{}, some, []string{"s3 first", "s3 second"}},
		"own keys only":    {Options{Access: artifact.Direct}, some[3:], []string{"s3 third"}},
		"by the server":    {Options{Access: artifact.Server}, some, nil},
		"by signed URLs":   {Options{Access: artifact.Presigned}, some, nil},
		"for all users":    {Options{Allowed: &Allowed{}}, some, nil},
		"no bucket":        {Options{}, []string{"", "/a/path", "file:///x", "s3:", "s3:///x", "mlflow-artifacts:/0", "gs://other/x"}, nil},
		"behind the place": {Options{}, []string{"r2://b@evil.example#.r2.cloudflarestorage.com/x", "s3://b?x/y"}, []string{"r2 b@evil.example", "s3 b"}},
	} {
		c.opt.Buckets = open
		r := New(c.opt)
		r.Expect(c.uris)
		var got []string
		for _, b := range r.likely.due() {
			got = append(got, b.scheme+" "+b.place)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if again := r.likely.due(); len(again) > 0 {
			t.Errorf("%s: %v at once again", name, again)
		}
	}
}
