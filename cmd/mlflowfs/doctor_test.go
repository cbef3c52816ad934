package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestDoctorKnowsDescriptors fails when doctor says nothing of a limit at which a mount
// fails while programs have a few files open, or finds fault with an ordinary one.
func TestDoctorKnowsDescriptors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit uint64
		files int
		state int
	}{{64, 0, lesser}, {1024, 336, lesser}, {4096, 1872, well}, {524288, 261968, well}, {1<<64 - 1, 2147483472, well}} {
		got := descriptors(c.limit, 8)
		if got.state != c.state || !strings.Contains(got.words, fmt.Sprintf("about %d files", c.files)) || (got.mend == "") != (c.state == well) {
			t.Errorf("%d: %+v", c.limit, got)
		}
	}
}

// TestDoctorSaysWhatEachRouteCosts fails when doctor does not say by which route an
// experiment's artifacts come, or calls one that streams whole files as good as one
// that reads ranges; when it repeats itself for each experiment of a store; or when it
// does not name the one whose artifacts can't be had, with the reason.
func TestDoctorSaysWhatEachRouteCosts(t *testing.T) {
	t.Parallel()
	status := func(a artifact.Access, err error) artifact.RouteStatus {
		return artifact.RouteStatus{Route: artifact.Route{Access: a}, Err: err, Chosen: err == nil, Read: err == nil}
	}
	stream := status(artifact.Server, nil)
	stream.Stream = true
	local := status(artifact.Direct, nil)
	local.Store, local.Read = &artifact.Local{}, false
	unread := status(artifact.Direct, nil)
	unread.Read = false
	denied, none := errors.New("no AWS credentials were found\nand more"), errors.ErrUnsupported
	at := func(where string, routes ...artifact.RouteStatus) resolve.Reason {
		return resolve.Reason{Where: where, Routes: routes}
	}
	var found []placeOf
	for i, why := range []resolve.Reason{
		at("s3://b/0/r/artifacts", status(artifact.Direct, nil)),
		at("s3://b/1/r/artifacts", status(artifact.Direct, nil), artifact.RouteStatus{}),
		at("s3://other/2/r/artifacts", status(artifact.Direct, denied), status(artifact.Presigned, nil)),
		at("gs://c/3/r/artifacts", status(artifact.Direct, denied), stream),
		at("mlflow-artifacts:/4/r/artifacts", status(artifact.Presigned, none), status(artifact.Server, nil)),
		at("mlflow-artifacts:/5/r/artifacts", status(artifact.Presigned, none), stream),
		at("/data/mlruns/6/r/artifacts", local),
		at("s3://b/7/r/artifacts", unread),
		{Where: "s3://b/8/r/artifacts", Routes: []artifact.RouteStatus{status(artifact.Direct, denied)}, Err: denied},
		{Where: "/nowhere/9/r/artifacts", Routes: []artifact.RouteStatus{local}, Elsewhere: "/nowhere is not on this machine"},
		at("s3://b/10", unread),
		at("mlflow-artifacts:/11", status(artifact.Presigned, none), status(artifact.Server, nil)),
		{Where: "s3://b/12", Routes: []artifact.RouteStatus{status(artifact.Direct, denied)}, Err: denied},
	} {
		found = append(found, placeFor(meta.Experiment{ID: fmt.Sprint(i), Name: fmt.Sprint("e", i)}, why, i < 10))
	}
	want := []finding{
		{"artifacts", well, "e0, e1: s3://b, direct: each read is one GET of the store", ""},
		{"artifacts", well, "e2: s3://other, presigned: each read is one GET of the store, and each file one request to the tracking server, which signs its URL", "direct is left: no AWS credentials were found"},
		{"artifacts", lesser, "e3: gs://c, server: each file is streamed through the server as a whole, whatever is read of it", "direct is left: no AWS credentials were found"},
		{"artifacts", well, "e4: mlflow-artifacts:/, server: each read is one GET of the tracking server", "presigned is left: unsupported operation"},
		{"artifacts", lesser, "e5: mlflow-artifacts:/, server: each file is streamed through the server as a whole, whatever is read of it", "presigned is left: unsupported operation"},
		{"artifacts", well, "e6: /data/mlruns/, direct: each file is opened where it lies", ""},
		{"artifacts", well, "e7: s3://b, direct: how files come is not known before one is read", ""},
		{"artifacts", broken, "e8: s3://b", "no AWS credentials were found\nand more"},
		{"artifacts", lesser, "e9: /nowhere/, direct: each file is opened where it lies", "/nowhere is not on this machine"},
		{"artifacts", well, "e10: s3://b, direct: how files come is not known before one is read; no run yet", ""},
		{"artifacts", well, "e11: mlflow-artifacts:/, server: each read is one GET of the tracking server; no run yet", "presigned is left: unsupported operation"},
		{"artifacts", lesser, "e12: s3://b; no run yet", "no AWS credentials were found\nand more"},
	}
	if got := byStore(found); !slices.Equal(got, want) {
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || got[i] != want[i] {
				t.Errorf("%d: %+v", i, got[i:min(i+1, len(got))])
			}
		}
	}
}

// idle is a tracking server with experiments without runs, whose artifacts would lie in a
// directory; those of the first would lie where nothing is.
type idle struct {
	meta.Store
	n   int
	dir string
}

func (s idle) SearchExperiments(context.Context, string, string) (p meta.Page[meta.Experiment], _ error) {
	for i := range s.n {
		p.Items = append(p.Items, meta.Experiment{ID: fmt.Sprint(i), Name: fmt.Sprint("e", i), Location: fmt.Sprint("file://", s.dir, "/", i)})
	}
	p.Items[0].Location = "/nowhere/ann/mlruns/0"
	return p, nil
}

func (idle) SearchRuns(context.Context, meta.RunQuery, string) (p meta.Page[meta.Run], _ error) {
	return p, nil
}

// TestDoctorLooksAtExperimentsWithoutRuns fails when doctor does not say where the
// artifacts of an experiment without runs would lie, or how many experiments it did not
// look at.
func TestDoctorLooksAtExperimentsWithoutRuns(t *testing.T) {
	t.Parallel()
	s := idle{n: doctorExperiments + 3, dir: t.TempDir()}
	for i := range s.n {
		if err := os.Mkdir(filepath.Join(s.dir, fmt.Sprint(i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	got := checkArtifacts(t.Context(), &stores{Resolver: resolve.New(resolve.Options{Tracking: s, Log: slog.New(slog.DiscardHandler)})})
	if len(got) != 3 || got[0].state != lesser || !strings.HasPrefix(got[0].words, "e0: /nowhere/ann/mlruns/") || !strings.HasSuffix(got[0].words, "; no run yet") || !strings.Contains(got[0].mend, "is not on this machine") ||
		got[1].state != well || !strings.HasPrefix(got[1].words, "e1, e2, e3") || !strings.Contains(got[1].words, "e19: file://"+s.dir+"/, direct: each file is opened where it lies; no run yet") ||
		got[2] != (finding{"artifacts", well, "3 more experiments were not looked at", ""}) {
		t.Errorf("%+v", got)
	}
}

// TestDoctorComparesClocks fails when doctor does not say that this machine's clock is
// off, from whose and by how much, so that an object store refuses what is signed here;
// or finds fault with an answer that took its time, or came from a cache.
func TestDoctorComparesClocks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	set, err := rest.ReadSettings(func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	note := func(host string, at, began time.Time, header ...string) {
		h := http.Header{"Date": {at.UTC().Format(http.TimeFormat)}}
		if len(header) > 0 {
			h.Set(header[0], header[1])
		}
		set.Clocks.Note(&http.Response{Header: h, Request: &http.Request{URL: &url.URL{Host: host}}}, began)
	}
	note("a", now.Add(-20*time.Minute), now)
	note("b", now.Add(5*time.Minute), now)
	note("slow", now.Add(-50*time.Second), now.Add(-time.Minute))
	note("cached", now.Add(-time.Hour), now, "Age", "3600")
	note("well", now, now)
	set.Clocks.Note(nil, now)
	(*rest.Clocks)(nil).Note(nil, now)
	got := checkClocks([]*rest.Clocks{set.Clocks})
	if len(got) != 3 || got[0].state != lesser || !strings.Contains(got[0].words, "ahead of that of a, and object stores refuse") || !strings.Contains(got[0].mend, "NTP") ||
		got[1].state != lesser || !strings.HasPrefix(got[1].words, "this machine's is 5m") && !strings.HasPrefix(got[1].words, "this machine's is 4m59s") || !strings.HasSuffix(got[1].words, "behind that of b") ||
		got[2] != (finding{"clock", well, "is that of slow, well", ""}) {
		t.Errorf("%+v", got)
	}
}
