package fs

import (
	"context"
	"io"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// runsDir is runs/: every run of every experiment.
type runsDir struct{ t *tree }

var _ Dir = runsDir{}

func (d runsDir) Lookup(ctx context.Context, id string) (*Node, error) {
	run, err := d.t.r.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	if run.ID != id {
		return nil, notExist(id)
	}
	return d.t.runNode(run), nil
}

func (t *tree) runNode(run *meta.Run) *Node {
	run = run.WithoutJSON()
	dir := t.artifacts("runs:/"+run.ID, func(ctx context.Context) (resolve.Dir, error) { return t.r.RunDir(ctx, run) })
	return &Node{Dir: dir, Mtime: run.Mtime(), TTL: t.r.TTL(run.Final())}
}

// List pages through the search, newest first.
func (d runsDir) List(context.Context) (Listing, error) {
	return &pages[meta.Run]{search: d.t.r.AllRuns(), entry: d.t.runEntry()}, nil
}

// runEntry makes an entry of each run, once.
func (t *tree) runEntry() func(*meta.Run) (Entry, bool) {
	var order resolve.NewestFirst
	return func(run *meta.Run) (Entry, bool) {
		switch {
		case order.Again(run.ID, run.Start):
			return Entry{}, false
		case !meta.ValidRunID(run.ID) || len(run.ID) > MaxName:
			return t.leaveOut("runs", run.ID)
		}
		return Entry{run.ID, t.runNode(run)}, true
	}
}

// pages is a listing that holds one page of a search at a time.
type pages[T any] struct {
	search func(context.Context, string) (meta.Page[T], error)
	entry  func(*T) (Entry, bool) // false: leave it out

	page  meta.Page[T]
	began bool
}

var _ Listing = (*pages[struct{}])(nil)

func (p *pages[T]) Next(ctx context.Context) (Entry, error) {
	for {
		for len(p.page.Items) > 0 {
			it := &p.page.Items[0]
			p.page.Items = p.page.Items[1:]
			if e, ok := p.entry(it); ok {
				return e, nil
			}
		}
		if p.began && p.page.Next == "" {
			return Entry{}, io.EOF
		}
		next, err := p.search(ctx, p.page.Next)
		if err != nil {
			return Entry{}, err
		}
		if p.began && next.Next == p.page.Next {
			next.Next = "" // a server that ignores the token would page for ever
		}
		p.page, p.began = next, true
	}
}
