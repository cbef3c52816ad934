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
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/mlflow"
)

// scripted is a store that answers as it is told.
type scripted struct {
	offer, list, read error
	entries           []Entry
	silent, silently  bool // no answer to a listing; to a read

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
		case <-time.After(200 * time.Millisecond):
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
	return &cache.Body{ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", int(n)))), Total: n}, nil
}

var refused = &mlflow.Error{Status: 403}

func choiceOf(stores ...*scripted) *Choice {
	var ways []Way
	for i, s := range stores {
		ways = append(ways, Way{Access: Access(fmt.Sprint(i)), Store: s})
	}
	c := NewChoice("id", "where", ways, 0)
	c.patience = 50 * time.Millisecond
	return c
}

func TestChoice(t *testing.T) {
	some := []Entry{{Name: "f", Size: 1}}
	for name, c := range map[string]struct {
		ways []*scripted
		want string // the way taken, or the beginning of the error
	}{
		"the first that answers":         {[]*scripted{{entries: some}, {}}, "0"},
		"no credentials":                 {[]*scripted{{list: NoCredentials("none")}, {entries: some}}, "1"},
		"refused":                        {[]*scripted{{list: refused}, {entries: some}}, "1"},
		"out of reach":                   {[]*scripted{{list: errors.New("connection refused")}, {entries: some}}, "1"},
		"silent":                         {[]*scripted{{silent: true}, {entries: some}}, "1"},
		"slow, and not silent":           {[]*scripted{{slow: true, entries: some}, {entries: some}}, "0"},
		"not offered":                    {[]*scripted{{offer: errors.ErrUnsupported}, {entries: some}}, "1"},
		"no such API":                    {[]*scripted{{list: &mlflow.Error{Status: 404}}, {entries: some}}, "1"},
		"no such bucket is an answer":    {[]*scripted{{list: ErrNoBucket}, {entries: some}}, "no such bucket"},
		"nothing there is an answer":     {[]*scripted{{}, {entries: some}}, "0"},
		"none":                           {[]*scripted{{list: refused}, {list: NoCredentials("none")}}, "0: "},
		"a read that the first can't do": {[]*scripted{{entries: some, read: errors.New("no such host")}, {entries: some}}, "1"},
		"a read in silence":              {[]*scripted{{entries: some, silently: true}, {entries: some}}, "1"},
		"a read of what is gone":         {[]*scripted{{entries: some, read: cache.ErrChanged}, {entries: some}}, "content changed"},
	} {
		t.Run(name, func(t *testing.T) {
			ch := choiceOf(c.ways...)
			_, err := ch.List(t.Context(), "")
			if err == nil {
				var b *cache.Body
				if b, err = ch.ReadRange(t.Context(), "f", 0, 1, ""); err == nil {
					b.Close()
				}
			}
			got := ""
			for _, v := range ch.Verdicts() {
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
		})
	}
}

// It is decided once, by one of many who ask, and remembered.
func TestChoiceIsRemembered(t *testing.T) {
	first, second := &scripted{list: refused}, &scripted{entries: []Entry{{Name: "f"}}}
	c := choiceOf(first, second)
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
		t.Errorf("the first way was tried %d times", n)
	}
	if Chosen(c) != Store(second) {
		t.Error("the choice is not seen from outside")
	}
	// A way that has brought a file is not left for a read that fails.
	b, err := c.ReadRange(t.Context(), "f", 0, 1, "")
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	second.read = errors.New("broken")
	if _, err := c.ReadRange(t.Context(), "f", 0, 1, ""); err == nil {
		t.Error("no error")
	}
}

// An absent directory decides nothing where it may be another machine's, until
// something is found somewhere.
func TestChoiceOfAnAbsentDirectory(t *testing.T) {
	local, server := &scripted{list: fs.ErrNotExist}, &scripted{}
	c := choiceOf(local, server)
	c.ways[0].Elsewhere = true
	for range 2 {
		if tree, err := c.List(t.Context(), ""); err != nil || len(tree[""]) > 0 {
			t.Fatal(tree, err)
		}
	}
	if local.lists.Load() != 2 {
		t.Error("it was decided by nothing")
	}
	local.list, local.entries = nil, []Entry{{Name: "f"}}
	if _, err := c.List(t.Context(), ""); err != nil || Chosen(c) != Store(local) {
		t.Error("what is there now is not taken", err)
	}
	c = choiceOf(&scripted{list: fs.ErrNotExist}, &scripted{entries: []Entry{{Name: "f"}}})
	c.ways[0].Elsewhere = true
	if _, err := c.List(t.Context(), ""); err != nil || c.Verdicts()[1].Chosen == false {
		t.Error("what the server has is not taken", err)
	}
}

// Who goes away finds nothing out.
func TestChoiceOfOneWhoGoes(t *testing.T) {
	c := choiceOf(&scripted{silent: true}, &scripted{entries: []Entry{{Name: "f"}}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.List(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if Chosen(c) != Store(c) {
		t.Error("it was decided")
	}
}
