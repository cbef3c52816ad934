package test

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestStoreIsConnectedToMeanwhile fails when a mount that has had nothing of its store
// connects to it only once the server has said where a run's artifacts lie; or when what
// it asks the store for then waits for a connection of its own.
func TestStoreIsConnectedToMeanwhile(t *testing.T) {
	t.Parallel()
	store := relayTo(t, theObjects(t).s3, 0)
	or := originAt(t, "s3")
	p := beforeRun(t, or, func() {
		select {
		case <-store.first:
		case <-time.After(long):
			t.Error("the store is not connected to while the server is asked")
		}
		time.Sleep(200 * time.Millisecond) // the mount has the connection that the relay has
	})
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

// TestFirstBytesTakeTwoRoundTrips fails when the first bytes of a run that a mount has
// never heard of, in a store that it has asked for nothing, come later than the store
// needs for a listing and a read, from when the server is about to say where they are.
func TestFirstBytesTakeTwoRoundTrips(t *testing.T) {
	t.Parallel()
	const trip = 3 * time.Second
	store := relayTo(t, theObjects(t).s3, trip)
	or := originAt(t, "s3")
	told := make(chan time.Time, 1)
	p := beforeRun(t, or, func() {
		time.Sleep(trip + trip/4) // a connection takes one
		select {
		case told <- time.Now():
		default:
		}
	})
	m := mountAt(t, p.URL, join(s3Env(store.addr), fast))
	b, err := os.ReadFile(m.path("runs", or.Run, "a.txt"))
	if took := time.Since(<-told); string(b) != "hello" || err != nil || took > 2*trip+trip/2 {
		t.Errorf("%q, %v, after %v: more than two round trips of %v", b, err, took, trip)
	}
}

// beforeRun is before the server of an origin, whose experiment is the one that a mount is
// told of first; then is called before the server is asked for a run.
func beforeRun(t *testing.T, or *origin, then func()) *count.Origin {
	t.Helper()
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
			then()
		}
		return false
	}, nil)
	return p
}

// relay sends connections on, and counts them.
type relay struct {
	addr  string
	made  atomic.Int64
	first chan struct{} // closed when one is made
}

// relayTo makes a relay to a server that is a round trip away: a connection takes one
// before it brings anything, and a question with its answer one.
func relayTo(t *testing.T, target string, trip time.Duration) *relay {
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
			wg.Go(func() {
				defer in.Close()
				time.Sleep(trip)
				out, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer out.Close()
				back := make(chan struct{})
				go func() {
					defer close(back)
					late(in, out, trip/2)
					in.Close()
				}()
				late(out, in, trip/2)
				out.Close()
				<-back
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return r
}

// late sends to one what comes from another, each piece so much later.
func late(to, from net.Conn, by time.Duration) {
	type piece struct {
		bytes []byte
		at    time.Time
	}
	pieces := make(chan piece, 1<<10)
	go func() {
		defer close(pieces)
		for {
			b := make([]byte, 32<<10)
			n, err := from.Read(b)
			if n > 0 {
				pieces <- piece{b[:n], time.Now().Add(by)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.at))
		to.Write(p.bytes) // where it can't be, from ends soon
	}
}
