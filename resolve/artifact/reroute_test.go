package artifact

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestRouteThatFailedIsTriedAgain fails when one failure at the first touch keeps a
// directory on a slower route for the life of the mount, when a route is tried again
// more often than every RetryRoutes, or when a program waits for that.
func TestRouteThatFailedIsTriedAgain(t *testing.T) {
	t.Parallel()
	some := []Entry{{Name: "f", Size: 1}}
	for name, first := range map[string]*scripted{
		"a listing": {list: errors.New("connection reset"), entries: some},
		"a read":    {read: errors.New("no such host"), entries: some},
		"silence":   {silent: true, entries: some},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				second := &scripted{entries: some}
				r := routerOf(first, second)
				use := func() Access {
					t.Helper()
					if _, err := r.List(t.Context(), ""); err != nil {
						t.Fatal(err)
					}
					if b, err := r.ReadRange(t.Context(), "f", 0, 1, ""); err != nil {
						t.Fatal(err)
					} else {
						b.Close()
					}
					return r.Route().Access
				}
				if via := use(); via != "1" {
					t.Fatalf("route %s", via)
				}
				lists, reads := first.lists.Load(), first.reads.Load()
				for range 10 {
					time.Sleep(RetryRoutes / 20)
					use()
				}
				if first.lists.Load() != lists || first.reads.Load() != reads {
					t.Error("a route that was left is tried again at once")
				}
				// It still fails: one try, for which nobody waits.
				time.Sleep(RetryRoutes)
				begin := time.Now()
				if via := use(); via != "1" || time.Since(begin) > 0 {
					t.Errorf("route %s after %v", via, time.Since(begin))
				}
				time.Sleep(2 * patience)
				if n := first.lists.Load(); n != lists+1 {
					t.Errorf("it was listed by the first route %d times, not once more than %d", n, lists)
				}
				synctest.Wait()
				first.list, first.read, first.silent = nil, nil, false
				time.Sleep(RetryRoutes)
				use()
				synctest.Wait()
				if via := use(); via != "0" {
					t.Errorf("the first route is well again, and route %s is taken", via)
				}
			})
		})
	}
}

// TestOpenFileStaysOnItsRoute fails when a file that is open goes on by another route,
// with a validator of its old one, when its directory goes back to an earlier route; or
// when it has the key of the other.
func TestOpenFileStaysOnItsRoute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		some := []Entry{{Name: "f", Size: 1}}
		first, second := &scripted{list: errors.New("connection reset"), entries: some}, &scripted{entries: some}
		r := routerOf(first, second)
		list := func() Access {
			t.Helper()
			if _, err := r.List(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			return r.Route().Access
		}
		via := list()
		synctest.Wait()
		first.list = nil
		time.Sleep(RetryRoutes)
		list()
		synctest.Wait()
		if now := list(); via != "1" || now != "0" {
			t.Fatalf("route %s, then %s", via, now)
		}
		b, err := r.ReadVia(t.Context(), via, "f", 0, 1, "etag")
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		if second.reads.Load() != 1 || first.reads.Load() != 0 || r.RouteOf(via) != "1" || r.RouteOf("0") != "0" {
			t.Errorf("%d reads by its route, %d by the other; it is listed by %s", second.reads.Load(), first.reads.Load(), r.RouteOf(via))
		}
	})
}
