package artifact

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
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

func listAndRead(t *testing.T, r *Router) error {
	_, err := r.List(t.Context(), "")
	b, err2 := r.ReadRange(t.Context(), "f", 0, 1, "")
	if err2 == nil {
		b.Close()
	}
	return errors.Join(err, err2)
}

// TestRouteThatHeldIsLeftForTheTimeBeing fails when a program gets an error for as long
// as the route of its directory fails, which read well before, although another one
// works; when many readers leave more routes than the one that fails; or when the route
// is not taken again later.
func TestRouteThatHeldIsLeftForTheTimeBeing(t *testing.T) {
	t.Parallel()
	some := []Entry{{Name: "f", Size: 1}}
	fails := errors.New("connection refused")
	for name, c := range map[string]struct {
		list, read error
		gone       bool // the other route, too
	}{
		"a read":              {read: fails},
		"a refusal":           {read: refused},
		"a listing":           {list: fails, read: fails},
		"both routes":         {list: fails, read: fails, gone: true},
		"what is not there":   {list: fs.ErrNotExist, read: fs.ErrNotExist},
		"what is another now": {read: cache.ErrChanged},
		"a listing alone":     {list: fails},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				first, second, third := &scripted{entries: some}, &scripted{entries: some}, &scripted{entries: some}
				r := routerOf(first, second, third)
				use := func() error { return listAndRead(t, r) }
				if err := use(); err != nil || r.Route().Access != "0" {
					t.Fatal(err, r.Route().Access)
				}
				first.list, first.read = c.list, c.read
				if c.gone {
					second.list, second.read = fails, fails
					third.list, third.read = fails, fails
				}
				want, answers := Access("1"), true
				if c.gone || c.read != nil && !tryNext(c.read) {
					want, answers = "0", false
				}
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() {
						if err := use(); (err == nil) != answers {
							t.Error(err)
						}
					})
				}
				if wg.Wait(); r.Route().Access != want {
					t.Errorf("the route %s is taken, and not %s", r.Route().Access, want)
				}
				first.list, first.read = nil, nil
				time.Sleep(RetryRoutes)
				use()
				synctest.Wait()
				if err := use(); r.Route().Access != "0" || err != nil && !c.gone {
					t.Errorf("later, the route %s is taken: %v", r.Route().Access, err)
				}
			})
		})
	}
}

// TestRouteIsTakenAgainWhereTheNextFails fails when a route that was left because of one
// fault is waited for, although the one that was taken instead fails, too: a fault of a
// moment then costs minutes.
func TestRouteIsTakenAgainWhereTheNextFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		some := []Entry{{Name: "f", Size: 1}}
		first, second := &scripted{entries: some}, &scripted{entries: some}
		r := routerOf(first, second)
		if err := listAndRead(t, r); err != nil || r.Route().Access != "0" {
			t.Fatal(err, r.Route().Access)
		}
		first.read = refused
		if err := listAndRead(t, r); err != nil || r.Route().Access != "1" {
			t.Fatal(err, r.Route().Access)
		}
		first.read, second.read = nil, refused
		if err := listAndRead(t, r); err != nil || r.Route().Access != "0" {
			t.Errorf("by the route %s: %v", r.Route().Access, err)
		}
	})
}

// TestListingThatFailedIsAskedOnce fails when a route that lists by the same store as the
// one that has just failed to list is asked for that, too.
func TestListingThatFailedIsAskedOnce(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"signed", "server"} { // that is chosen
		server := &scripted{entries: []Entry{{Name: "f", Size: 1}}}
		signed := &Signed{Store: server, sign: offering{}}
		r := NewRouter("id", "where", []Route{{Access: "signed", Store: signed}, {Access: "server", Store: server}}, 0)
		if _, err := r.List(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if first == "server" {
			r.left = []leftRoute{{err: refused, file: "f", had: true}}
			r.since = time.Now()
		}
		server.list = errors.New("connection refused")
		asked := server.lists.Load()
		if _, err := r.List(t.Context(), ""); !errors.Is(err, server.list) || server.lists.Load() != asked+1 {
			t.Errorf("by %s: the server was asked %d times: %v", first, server.lists.Load()-asked, err)
		}
	}
}

// offering offers presigned URLs.
type offering struct{ Signer }

func (offering) Offers(context.Context) error { return nil }

// TestRoutesOfOneFileAreNotMixed fails when a file that was read in part by a route that
// fails goes on by another, of which nothing tells that it leads to the same content; or
// when it does not go on where the validator tells so.
func TestRoutesOfOneFileAreNotMixed(t *testing.T) {
	t.Parallel()
	for second, same := range map[string]bool{`"a"`: true, `"b"`: false, "": false} {
		some := []Entry{{Name: "f", Size: 1}}
		direct, other := &scripted{entries: some, validator: `"a"`}, &scripted{entries: some, validator: second}
		r := routerOf(direct, other)
		if _, err := r.List(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		read := func() error {
			b, err := r.ReadVia(t.Context(), "0", "f", 0, 1, `"a"`)
			if err == nil {
				b.Close()
			}
			return err
		}
		if err := read(); err != nil {
			t.Fatal(err)
		}
		direct.read = errors.New("connection refused")
		for range 2 { // as it is left, and after that
			if err := read(); same != (err == nil) || !same && !errors.Is(err, cache.ErrChanged) {
				t.Errorf("the other route gives the validator %q: %v", second, err)
			}
		}
		if b, err := r.ReadVia(t.Context(), r.RouteOf("0"), "f", 0, 1, ""); err != nil || r.Route().Access != "1" {
			t.Errorf("it can't be opened again: %v, by %s", err, r.Route().Access)
		} else {
			b.Close()
		}
	}
}
