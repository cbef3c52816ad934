package resolve

import (
	"log/slog"
	"testing"

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
