package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// scripted is a store that answers as it is told.
type scripted struct {
	offer, list, read error
	entries           []Entry
	validator         string // of what is read
	silent, silently  bool   // no answer to a listing; to a read

	slow         bool // a listing of many pages
	lists, reads atomic.Int64
}

func (s *scripted) ID() string                      { return "scripted" }
func (s *scripted) check(ctx context.Context) error { return s.offer }
func (s *scripted) List(ctx context.Context, dir string) (Tree, error) {
	s.lists.Add(1)
	if s.silent {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if s.slow {
		answered(ctx)
		select {
		case <-time.After(4 * patience):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return Tree{dir: s.entries}, s.list
}

func (s *scripted) ReadRange(ctx context.Context, _ string, _, n int64, _ string) (*cache.Body, error) {
	s.reads.Add(1)
	if s.silently {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if s.read != nil {
		return nil, s.read
	}
	return &cache.Body{ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", int(n)))), Total: n, Validator: s.validator}, nil
}

var refused = &rest.Error{Status: 403}

func routerOf(stores ...*scripted) *Router {
	var routes []Route
	for i, s := range stores {
		routes = append(routes, Route{Access: Access(fmt.Sprint(i)), Store: s})
	}
	return NewRouter("id", "where", routes, 0)
}

// patience is how long a route may be silent before the next one is tried.
const patience = 20 * time.Second

// TestFirstRouteThatAnswersIsTaken fails when artifacts can't be read although one of
// several routes leads to them, or when a slower route is taken although an earlier
// one works.
func TestFirstRouteThatAnswersIsTaken(t *testing.T) {
	t.Parallel()
	some := []Entry{{Name: "f", Size: 1}}
	takes := map[string]time.Duration{"silent": patience, "slow, and not silent": 4 * patience, "a read in silence": patience} // the others: no time
	for name, c := range map[string]struct {
		routes []*scripted
		want   string // the route taken, or the beginning of the error
	}{
		"the first that answers":         {[]*scripted{{entries: some}, {}}, "0"},
		"no credentials":                 {[]*scripted{{list: NoCredentials("none")}, {entries: some}}, "1"},
		"refused":                        {[]*scripted{{list: refused}, {entries: some}}, "1"},
		"out of reach":                   {[]*scripted{{list: errors.New("connection refused")}, {entries: some}}, "1"},
		"silent":                         {[]*scripted{{silent: true}, {entries: some}}, "1"},
		"slow, and not silent":           {[]*scripted{{slow: true, entries: some}, {entries: some}}, "0"},
		"not offered":                    {[]*scripted{{offer: errors.ErrUnsupported}, {entries: some}}, "1"},
		"no such API":                    {[]*scripted{{list: &rest.Error{Status: 404}}, {entries: some}}, "1"},
		"no such bucket is an answer":    {[]*scripted{{list: ErrNoBucket}, {entries: some}}, "no such bucket"},
		"nothing there is an answer":     {[]*scripted{{}, {entries: some}}, "0"},
		"none":                           {[]*scripted{{list: refused}, {list: NoCredentials("none")}}, "0: "},
		"a read that the first can't do": {[]*scripted{{entries: some, read: errors.New("no such host")}, {entries: some}}, "1"},
		"a read in silence":              {[]*scripted{{entries: some, silently: true}, {entries: some}}, "1"},
		"a read of what is gone":         {[]*scripted{{entries: some, read: cache.ErrChanged}, {entries: some}}, "content changed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				ch := routerOf(c.routes...)
				_, err := ch.List(t.Context(), "")
				if err == nil {
					var b *cache.Body
					if b, err = ch.ReadRange(t.Context(), "f", 0, 1, ""); err == nil {
						b.Close()
					}
				}
				got := ""
				for _, v := range ch.Statuses() {
					if v.Chosen {
						got = string(v.Access)
					}
				}
				if err != nil {
					got = err.Error()
				}
				if got != c.want && (err == nil || !strings.HasPrefix(got, c.want)) {
					t.Errorf("%q, want %q", got, c.want)
				}
				if took := time.Since(begin); took != takes[name] {
					t.Errorf("it took %v, want %v", took, takes[name])
				}
			})
		})
	}
}

// TestRouteIsRemembered fails when each read tries the refused routes again, or when
// many readers at once try them each for itself.
func TestRouteIsRemembered(t *testing.T) {
	t.Parallel()
	first, second := &scripted{list: refused}, &scripted{entries: []Entry{{Name: "f"}}}
	c := routerOf(first, second)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.List(t.Context(), ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := first.lists.Load(); n != 1 {
		t.Errorf("the first route was tried %d times", n)
	}
	if c.Route().Store != Store(second) {
		t.Error("the choice is not seen from outside")
	}
}

// TestAbsentDirectoryDecidesNoRoute fails when a directory that is not on this machine
// yet, but may be on another, settles the route before something is found on one.
func TestAbsentDirectoryDecidesNoRoute(t *testing.T) {
	t.Parallel()
	local, server := &scripted{list: fs.ErrNotExist}, &scripted{}
	c := routerOf(local, server)
	c.routes[0].Elsewhere = true
	for range 2 {
		if tree, err := c.List(t.Context(), ""); err != nil || len(tree[""]) > 0 {
			t.Fatal(tree, err)
		}
	}
	if local.lists.Load() != 2 {
		t.Error("it was decided by nothing")
	}
	local.list, local.entries = nil, []Entry{{Name: "f"}}
	if _, err := c.List(t.Context(), ""); err != nil || c.Route().Store != Store(local) {
		t.Error("what is there now is not taken", err)
	}
	c = routerOf(&scripted{list: fs.ErrNotExist}, &scripted{entries: []Entry{{Name: "f"}}})
	c.routes[0].Elsewhere = true
	if _, err := c.List(t.Context(), ""); err != nil || c.Statuses()[1].Chosen == false {
		t.Error("what the server has is not taken", err)
	}
}

// TestCancelledListDecidesNoRoute fails when a program that gives up makes a route
// count as broken for those that come after it.
func TestCancelledListDecidesNoRoute(t *testing.T) {
	t.Parallel()
	c := routerOf(&scripted{silent: true}, &scripted{entries: []Entry{{Name: "f"}}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.List(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if c.Route().Store != nil {
		t.Error("it was decided")
	}
}

// TestNoRouteIsLeftForGood fails when a store that can be read by one route alone,
// which fails once while the others are refused, is never read again. It was so
// on a server that refuses all bytes and only signs URLs.
func TestNoRouteIsLeftForGood(t *testing.T) {
	t.Parallel()
	signed, proxy := &scripted{read: errors.New("connection reset")}, &scripted{read: refused}
	c := routerOf(signed, proxy)
	read := func() error {
		body, err := c.ReadRange(t.Context(), "f", 0, 1, "")
		if err == nil {
			body.Close()
		}
		return err
	}
	if _, err := c.List(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if err := read(); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "connection reset") {
		t.Errorf("the words of both routes are not in %v", err)
	}
	signed.read = nil
	if err := read(); err != nil {
		t.Errorf("the first route is well again, and is not tried: %v", err)
	}
	if signed.reads.Load() != 2 || proxy.reads.Load() != 1 || c.Route().Access != "0" {
		t.Errorf("%d and %d reads, by the route %q", signed.reads.Load(), proxy.reads.Load(), c.Route().Access)
	}
}
