package resolve

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestOriginIsTheHost fails when the files of one server or bucket count as those of
// several, so that its silence and its limit are of each run alone; or when those of
// two count as one, so that one that is silent takes the other's requests.
func TestOriginIsTheHost(t *testing.T) {
	t.Parallel()
	client := func(uri string) *rest.Client {
		t.Helper()
		c, err := rest.NewClient(uri, func(string) string { return "" }, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for name, stores := range map[string]func(host, run string) artifact.Store{
		"served": func(host, run string) artifact.Store {
			return artifact.NewServed(client("https://"+host), artifact.Door{RunID: run}, true)
		},
		"served below a path": func(host, run string) artifact.Store {
			return artifact.NewServed(client("https://"+host+"/prefix/"), artifact.Door{RunID: run}, true)
		},
		"proxied": func(host, run string) artifact.Store {
			return artifact.NewProxy(client("https://"+host), "https://"+host+"/api/2.0/mlflow-artifacts/artifacts", "1/"+run)
		},
		"bucket": func(host, run string) artifact.Store {
			return artifact.NewBlob("s3://"+host+"/"+run, run, nil)
		},
	} {
		origin := func(host, run string) string {
			return Item{Store: artifact.NewRouter(stores(host, run).ID(), "", []artifact.Route{{Store: stores(host, run)}}, 0), Path: "f"}.Origin()
		}
		if a, b := origin("a", "1"), origin("a", "2"); a != b || a == "" {
			t.Errorf("%s: two runs of one host are of %q and %q", name, a, b)
		}
		if a, b := origin("a", "1"), origin("b", "1"); a == b {
			t.Errorf("%s: two hosts are both %q", name, a)
		}
	}
}

// files is a store of names with sizes; a name that ends in / is a directory.
type files map[string][]string

func (f files) ID() string { return "files" }
func (f files) List(_ context.Context, dir string) (artifact.Tree, error) {
	names, ok := f[dir]
	if !ok {
		return nil, fs.ErrNotExist
	}
	var out []artifact.Entry
	for _, n := range names {
		name, isDir := strings.CutSuffix(n, "/")
		out = append(out, artifact.Entry{Name: name, IsDir: isDir, Size: int64(len(dir))})
	}
	return artifact.Tree{dir: out}, nil
}

func (f files) ReadRange(context.Context, string, int64, int64, string) (*cache.Body, error) {
	return nil, errors.ErrUnsupported
}

// TestModelIsShownInItsRun fails when the directory of a run does not show the files of
// a model that was logged in it, over the run's own, or when a listing and a look-up
// of the same name differ.
func TestModelIsShownInItsRun(t *testing.T) {
	t.Parallel()
	r := resolver(t, "")
	st := artifact.NewRouter("files", "", []artifact.Route{{Store: files{
		"run":         {"model/", "a", "other/", "plain"},
		"run/model":   {"MLmodel", "extra", "sub/"},
		"m":           {"MLmodel", "data", "sub/"},
		"m/sub":       {"x"},
		"run/other":   {},
		"run/nothing": nil,
	}}}, 0)
	o := Dir{
		Parts: []Part{{st, "run"}}, Mtime: time.Unix(5, 0), Final: true,
		Mounts: []Mount{
			{"model", Dir{Parts: []Part{{st, "m"}}, Meta: metaOf("", ""), Final: true}},
			{"plain", Dir{Parts: []Part{{st, "m"}}, Final: false}},
		},
	}
	show := func(o *Dir) (out []string) {
		t.Helper()
		items, err := r.List(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		for it := range items.All() {
			s := it.Name
			if it.Dir != nil {
				s += "/"
			}
			if it.Path != "" {
				s += " " + it.Path
			}
			out = append(out, s)
			one, err := r.Lookup(context.Background(), o, it.Name)
			if err != nil || one.Path != it.Path || (one.Dir == nil) != (it.Dir == nil) || one.Size != it.Size {
				t.Errorf("look-up of %s gives %+v, %v", it.Name, one, err)
			}
		}
		return out
	}
	if d := cmp.Diff([]string{"a run/a", "model/", "other/", "plain/"}, show(&o)); d != "" {
		t.Error(d)
	}
	model, err := r.descend(context.Background(), o, "model")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"MLmodel m/MLmodel", "data m/data", "extra run/model/extra", "registered_model_meta", "sub/"}, show(&model)); d != "" {
		t.Error(d)
	}
	if !model.Mtime.Equal(o.Mtime) || !model.Final {
		t.Error("the model in a run has not the run's time")
	}
	sub, err := r.descend(context.Background(), o, "model/sub")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"x m/sub/x"}, show(&sub)); d != "" {
		t.Error(d) // no registered_model_meta below the root
	}
	if _, err := r.Lookup(context.Background(), &o, MetaName); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a directory without an MLmodel has registered_model_meta:", err)
	}
	for _, p := range []string{"a", "none", "model/none"} {
		if _, err := r.descend(context.Background(), o, p); !errors.Is(err, fs.ErrNotExist) {
			t.Error(p, err)
		}
	}
}
