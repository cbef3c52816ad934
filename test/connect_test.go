package test

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestStoreIsConnectedToMeanwhile fails when a mount that has had nothing of its store
// connects to it only once the server has said where a run's artifacts lie; or when what
// it asks the store for then waits for a connection of its own.
func TestStoreIsConnectedToMeanwhile(t *testing.T) {
	t.Parallel()
	o := theObjects(t)
	or := originAt(t, "s3")
	store := relayTo(t, o.s3)
	get := func(what string) map[string]any {
		return api(t, or.server.url(), "GET /api/2.0/mlflow/"+what, nil)
	}
	id := get("runs/get?run_id=" + or.Run)["run"].(map[string]any)["info"].(map[string]any)["experiment_id"].(string)
	name := get("experiments/get?experiment_id=" + id)["experiment"].(map[string]any)["name"].(string)
	p := proxyTo(t, or.server.url())
	p.Break(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/experiments/search"): // others make some, too
			r.URL.RawQuery += "&filter=" + url.QueryEscape("name = '"+name+"'")
		case strings.HasSuffix(r.URL.Path, "/runs/get"):
			select {
			case <-store.first:
			case <-time.After(long):
				t.Error("the store is not connected to while the server is asked")
			}
			time.Sleep(200 * time.Millisecond) // the mount has the connection that the relay has
		}
		return false
	}, nil)
	m := mountAt(t, p.URL, join(s3Env(store.addr), fast))
	if n := store.made.Load(); n > 0 {
		t.Errorf("%d connections before anything is asked for", n)
	}
	if entries, err := os.ReadDir(m.path("runs", or.Run)); len(entries) == 0 {
		t.Error(entries, err)
	}
	if n := store.made.Load(); n != 1 {
		t.Errorf("%d connections for one listing", n)
	}
}

// relay sends connections on, and counts them.
type relay struct {
	addr  string
	made  atomic.Int64
	first chan struct{} // closed when one is made
}

func relayTo(t *testing.T, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: l.Addr().String(), first: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			if r.made.Add(1) == 1 {
				close(r.first)
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				wg.Go(func() {
					io.Copy(way[1], way[0])
					in.Close()
					out.Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return r
}
