package fs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// promptStore is a registry with a prompt of each name, which is a stranger's word.
type promptStore struct {
	meta.Store  // nil: nothing else is asked for
	names       []string
	aliases     map[string]string
	tags        map[string]string
	endless     bool         // each page has another behind it
	asked, held atomic.Int64 // searches, and look-ups
}

func (s *promptStore) model(name string) meta.RegisteredModel {
	return meta.RegisteredModel{Name: name, Prompt: true, Aliases: s.aliases, Latest: []meta.Version{{Version: "1", Prompt: true}}}
}

func (s *promptStore) SearchPrompts(_ context.Context, token string) (p meta.Page[meta.RegisteredModel], _ error) {
	n := s.asked.Add(1)
	for _, name := range s.names {
		p.Items = append(p.Items, s.model(name))
	}
	if s.endless {
		p.Next = fmt.Sprint(n)
	}
	return p, nil
}

func (s *promptStore) RegisteredModel(_ context.Context, name string) (*meta.RegisteredModel, error) {
	s.held.Add(1)
	m := s.model(name)
	if m.Prompt = name != "model"; !m.Prompt || slices.Contains(s.names, name) {
		return &m, nil
	}
	return nil, fmt.Errorf("%q: %w", name, iofs.ErrNotExist)
}

func (s *promptStore) SearchPromptVersions(context.Context, string, string) (meta.Page[meta.Version], error) {
	s.asked.Add(1)
	return meta.Page[meta.Version]{Items: []meta.Version{{Version: "1"}, {Version: "01"}, {Version: "../1"}, {Version: ""}}}, nil
}

func (s *promptStore) Prompt(_ context.Context, name, version string) (*meta.Prompt, error) {
	s.held.Add(1)
	if version != "1" {
		return nil, iofs.ErrNotExist
	}
	return &meta.Prompt{Name: name, Version: version, Tags: s.tags}, nil
}

func (s *promptStore) tree(t *testing.T) asFS {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	root, err := New(Options{Resolver: resolve.New(resolve.Options{Tracking: s, Log: log}), Cache: cache.New(cache.Options{}), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	n, err := root.Dir.Lookup(context.Background(), "prompts")
	if err != nil {
		t.Fatal(err)
	}
	return asFS{n}
}

// TestPromptsOfAStrangerAreFiles fails when a name, an alias, a version or a text that a
// server may send leads out of its directory, hides another, or is not what it was sent
// as, or when a model is taken for a prompt, or the other way round: slashes, dots, controls, an @, a NUL, 10 MiB, tags that are no JSON.
func TestPromptsOfAStrangerAreFiles(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 200)
	s := &promptStore{
		names:   []string{"a/b", "..", ".", "x@y", "new\nline", "100%2F", long, "plain"},
		aliases: map[string]string{"prod": "1", "a/b": "1", "..": "1", "out": "../../runs", "zero": "01", "at@": "1"},
	}
	text := "NUL \x00, <b>&amp; \u2028"
	s.tags = map[string]string{
		"mlflow.prompt.is_prompt": "true", "mlflow.prompt.text": text, "_mlflow_prompt_type": "text",
		"_mlflow_prompt_response_format": "{no JSON", "_mlflow_prompt_model_config": `{"n": 12345678901234567890}`, "own": "x",
	}
	f := s.tree(t)
	if err := fstest.TestFS(f, "a%2Fb/1/template.txt", "%2E%2E/latest", ".@a%2Fb", "x@y", "x@y@prod", "new\nline/1/prompt.json", "100%252F@..", "plain/1"); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{"a%2Fb@prod": "a%2Fb/1", "..@..": "%2E%2E/1", "plain@LATEST": "plain/1", "plain/latest": "1", "plain/Latest": "1"} {
		if got, err := f.ReadLink(name); got != want || err != nil {
			t.Errorf("%q leads to %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"plain@out", "plain@zero", "plain@at@", "plain/01", "plain/2", "plain/Production", "plain/model.json", "model", "model@prod", "model/1", "none", "plain/1/messages.json", "a/b"} {
		if _, err := iofs.Stat(f, name); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
	}
	text += strings.Repeat("0123456789", 1<<20)
	s.tags = maps.Clone(s.tags)
	s.tags["mlflow.prompt.text"] = text
	f = s.tree(t)
	if _, err := (modelsDir{&tree{r: resolve.New(resolve.Options{Tracking: s})}}).Lookup(t.Context(), "plain"); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("a prompt among the models: %v", err)
	}
	if got, err := iofs.ReadFile(f, "plain/1/template.txt"); err != nil || string(got) != text {
		t.Errorf("%d bytes of %d, %v", len(got), len(text), err)
	}
	var card struct {
		Template       string
		Tags           map[string]string
		ResponseFormat any             `json:"response_format"`
		ModelConfig    json.RawMessage `json:"model_config"`
	}
	got, err := iofs.ReadFile(f, "plain/1/prompt.json")
	if err := errors.Join(err, json.Unmarshal(got, &card)); err != nil || card.Template != text || card.ResponseFormat != nil ||
		card.Tags["_mlflow_prompt_response_format"] != "{no JSON" || card.Tags["own"] != "x" || len(card.Tags) != 2 || !strings.Contains(string(card.ModelConfig), "12345678901234567890") {
		t.Errorf("%.2000s, %v", got, err)
	}
}

// TestPromptsAreAskedForAsNeeded fails when a look-up of a prompt depends on a listing,
// or when a listing asks for more than is read of it, be it without an end.
func TestPromptsAreAskedForAsNeeded(t *testing.T) {
	t.Parallel()
	s := &promptStore{names: []string{"a", "b"}, endless: true, tags: map[string]string{"mlflow.prompt.text": "[1]", "_mlflow_prompt_type": "chat"}}
	f := s.tree(t)
	if got, err := iofs.ReadFile(f, "a/1/messages.json"); err != nil || string(got) != "[\n  1\n]\n" {
		t.Errorf("%q, %v", got, err)
	}
	if asked, held := s.asked.Load(), s.held.Load(); asked != 0 || held != 2 {
		t.Errorf("one file cost %d searches and %d look-ups", asked, held)
	}
	l, err := f.root.Dir.List(context.Background())
	for range 6 {
		if err == nil {
			_, err = l.Next(context.Background())
		}
	}
	if err != nil || s.asked.Load() != 3 {
		t.Errorf("six names cost %d pages of two, %v", s.asked.Load(), err)
	}
	s.endless = false
	if _, err = iofs.ReadDir(f, "."); err != nil && err != io.EOF {
		t.Error(err)
	}
	if held := s.held.Load(); held != 2 {
		t.Errorf("listings cost %d look-ups", held-2)
	}
}
