package meta

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/answers"
)

// outage is a store that can't be asked while it is down.
type outage struct {
	Store
	down  atomic.Bool
	asked atomic.Int64
	spans string
}

var errDown = errors.New("the server is down")

func (o *outage) Remote() bool { return true }

func (o *outage) ask() error {
	o.asked.Add(1)
	if o.down.Load() {
		return errDown
	}
	return nil
}

func (o *outage) Prompt(context.Context, string, string) (*Prompt, error) {
	text := "t"
	return &Prompt{Name: "p", Version: "1", Description: &text, Tags: map[string]string{promptTag: "true"}, Created: time.UnixMilli(1)}, o.ask()
}

func (o *outage) SearchPrompts(context.Context, string) (Page[RegisteredModel], error) {
	return Page[RegisteredModel]{Items: []RegisteredModel{{Name: "p", Prompt: true}}, Next: "n"}, o.ask()
}

func (o *outage) SearchPromptVersions(context.Context, string, string) (Page[Version], error) {
	return Page[Version]{Items: []Version{{Version: "1"}}}, o.ask()
}

func (o *outage) Trace(context.Context, string) (*Trace, error) {
	return &Trace{ID: "t", Info: []byte(`{}`), Stored: true}, o.ask()
}

func (o *outage) SearchTraces(context.Context, string, string) (Page[Trace], error) {
	return Page[Trace]{Items: []Trace{{ID: "t"}}}, o.ask()
}

func (o *outage) Spans(context.Context, *Trace) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(o.spans)), o.ask()
}

// TestPromptsAndTracesOutliveAnOutage fails when what a server said last of prompts and
// traces is not given while it can't be asked, when spans of any length take memory for
// that, or when those that are not kept are given in part.
func TestPromptsAndTracesOutliveAnOutage(t *testing.T) {
	t.Parallel()
	o := &outage{spans: `{"spans": []}`}
	s := WithLastAnswers(o, answers.New(nil, answers.Options{Stale: time.Hour}), "http://host", "")
	ctx := t.Context()
	ask := map[string]func() error{
		"prompt": func() error {
			p, err := s.Prompt(ctx, "p", "1")
			return wrong(err, err == nil && *p.Description == "t")
		},
		"prompts": func() error {
			p, err := s.SearchPrompts(ctx, "")
			return wrong(err, len(p.Items) == 1 && p.Next == "n")
		},
		"prompt versions": func() error { p, err := s.SearchPromptVersions(ctx, "p", ""); return wrong(err, len(p.Items) == 1) },
		"trace": func() error {
			p, err := s.Trace(ctx, "t")
			return wrong(err, err == nil && p.Stored && len(p.Info) == 2)
		},
		"traces": func() error { p, err := s.SearchTraces(ctx, "1", ""); return wrong(err, len(p.Items) == 1) },
		"spans":  func() error { return spansAre(s, "few", o.spans) },
	}
	for _, down := range []bool{false, true} {
		o.down.Store(down)
		for what, f := range ask {
			if err := f(); err != nil {
				t.Errorf("%s, down %v: %v", what, down, err)
			}
		}
	}
	o = &outage{spans: `{"spans": ["` + strings.Repeat("x", keptSpans) + `"]}`}
	s = WithLastAnswers(o, answers.New(nil, answers.Options{Stale: time.Hour}), "http://host", "")
	if err := spansAre(s, "many", o.spans); err != nil || o.asked.Load() != 2 {
		t.Errorf("many spans cost %d requests, %v", o.asked.Load(), err)
	}
	o.down.Store(true)
	if err := spansAre(s, "many", o.spans); !errors.Is(err, errDown) {
		t.Errorf("many spans in an outage: %v", err)
	}
}

func wrong(err error, right bool) error {
	if err == nil && !right {
		err = errors.New("it is another answer")
	}
	return err
}

func spansAre(s Store, id, want string) error {
	r, err := s.Spans(context.Background(), &Trace{ID: id})
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	return wrong(err, string(got) == want)
}
