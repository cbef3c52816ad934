package resolve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// lending is a registry that manages the files of its versions: that of a model a.b.c is
// at uri, and is opened with what lend gives.
type lending struct {
	meta.Store
	uri string

	mu    sync.Mutex // guards what follows
	asked int
	lend  func(n int) (rest.Lent, error)
}

func (l *lending) Version(_ context.Context, name, version string) (*meta.Version, error) {
	return &meta.Version{Name: name, Version: version, URI: l.uri, Status: "READY", Managed: true, RunID: "r", Source: "models:/m-x"}, nil
}

func (l *lending) Lend(_ context.Context, name, version string) (rest.Lent, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if name != "a.b.c" || version != "1" {
		return rest.Lent{}, fs.ErrNotExist
	}
	return l.lend(l.asked)
}

// TestManagedFilesAreOpenedWithWhatIsLent fails when the files of a version that its
// registry manages are opened with keys of the client's own, or lead to a run, a server or
// another name; or when what was read of them is shown of a place that the client opens
// itself, or of another version.
func TestManagedFilesAreOpenedWithWhatIsLent(t *testing.T) {
	t.Parallel()
	var lent []rest.Lent
	l := &lending{lend: func(int) (rest.Lent, error) { return rest.Lent{Key: "lent"}, nil }}
	r := New(Options{
		Tracking: meta.Store(nil), Registry: l, Log: slog.New(slog.DiscardHandler),
		Buckets: map[string]artifact.OpenBucket{"s3": func(context.Context, string) (*artifact.Bucket, error) {
			t.Error("the client's own keys are used")
			return nil, errors.ErrUnsupported
		}},
		Lent: map[string]artifact.OpenLent{"s3": func(_ context.Context, at string, with rest.Lent) (*artifact.Bucket, error) {
			lent = append(lent, with)
			return nil, fmt.Errorf("%s: %w", at, fs.ErrPermission)
		}},
	})
	l.uri = "s3://secret/x"
	d, err := r.VersionDir(t.Context(), "a.b.c", "1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Parts[0].Store.List(t.Context(), ""); !errors.Is(err, fs.ErrPermission) || len(lent) != 1 || lent[0].Key != "lent" {
		t.Errorf("%v, lent %d", err, len(lent))
	}
	own, _, _ := r.routes(place{uri: l.uri})
	other, _, _ := r.routes(place{uri: l.uri, of: managed{"a.b.c", "2"}})
	if id := d.Parts[0].Store.ID(); id == own || id == other || own == other {
		t.Errorf("%q, %q, %q", id, own, other)
	}
	for i, uri := range []string{"gs://b/x", "sftp://h/x", "runs:/r/x", "models:/a.b.c/1", "mlflow-artifacts:/x", "http://127.0.0.1/x", "s3:x", "dbfs:/x", "databricks:/models/x"} {
		l.uri = uri
		d, err := r.VersionDir(t.Context(), "a.b.c", fmt.Sprint(10+i)) // which nobody remembers
		if err == nil {
			_, err = d.Parts[0].Store.List(t.Context(), "")
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", uri, err)
		}
	}
	if r.opt.Allowed, err = ParseAllowed(nil); err != nil {
		t.Fatal(err)
	}
	for i, uri := range []string{"/etc", "file:///etc"} {
		l.uri = uri
		d, err := r.VersionDir(t.Context(), "a.b.c", fmt.Sprint(100+i))
		if err == nil {
			_, err = d.Parts[0].Store.List(t.Context(), "")
		}
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "--allow-other") {
			t.Errorf("%s with --allow-other: %v", uri, err)
		}
	}
}

// TestLentBucketIsKeptAsLongAsItIsGood fails when a bucket is borrowed for more than once
// at a time, or while what is lent is good; when it is not renewed before that ends; when a
// registry that can't be asked costs what is good still, or a refusal of its does not; or
// when a clock that is wrong has each read borrow.
func TestLentBucketIsKeptAsLongAsItIsGood(t *testing.T) {
	t.Parallel()
	until := time.Hour
	var fail error
	l := &lending{lend: func(n int) (rest.Lent, error) {
		return rest.Lent{Key: fmt.Sprint(n), Until: time.Now().Add(until)}, fail
	}}
	r := New(Options{Registry: l, Log: slog.New(slog.DiscardHandler), Lent: map[string]artifact.OpenLent{"s3": func(context.Context, string, rest.Lent) (*artifact.Bucket, error) {
		return &artifact.Bucket{}, nil
	}}})
	p := lentPlace{"s3", "b", managed{"a.b.c", "1"}}
	open := func(fresh bool) *artifact.Bucket {
		b, _ := r.openLent(t.Context(), p, fresh)
		return b
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { open(false) })
	}
	wg.Wait()
	first := open(true) // too soon for another
	if l.asked != 1 || first == nil {
		t.Errorf("%d times borrowed", l.asked)
	}
	until = -time.Hour // as a clock says that is an hour ahead
	r.lent.Drop(p)
	for range 20 {
		open(false)
	}
	if l.asked != 2 {
		t.Errorf("%d times borrowed by a wrong clock", l.asked)
	}
	until = time.Hour
	r.lent.Drop(p)
	good := open(false)
	for _, c := range []struct {
		err  error
		want *artifact.Bucket
	}{{errors.New("the registry is gone"), good}, {&rest.Error{Status: 503}, good}, {&rest.Error{Status: 403, Code: "PERMISSION_DENIED"}, nil}} {
		fail = c.err
		r.lent.Drop(p)
		if got := open(false); got != c.want {
			t.Errorf("%v: another bucket", c.err)
		}
	}
	for left, want := range map[time.Duration]time.Duration{time.Hour: 48 * time.Minute, time.Second: reopenEvery, -time.Hour: reopenEvery} {
		if got := (lentBucket{until: time.Now().Add(left)}).renewedIn(); (got - want).Abs() > time.Second {
			t.Errorf("with %v left it is renewed in %v", left, got)
		}
	}
}
