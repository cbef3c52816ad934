package meta

import (
	"context"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
)

// Lifetime is how long an answer is believed. final says that nothing is written any
// more to what it tells of.
type Lifetime func(final bool) time.Duration

// runsBytes and promptsBytes are how much of runs and of prompts is remembered.
const (
	runsBytes    = 16 << 20
	promptsBytes = 8 << 20
)

// cachedTracking remembers what was looked up by its id. What a search gives is not
// remembered: a caller knows best how much of it it wants.
type cachedTracking struct {
	Tracking
	runs   *cache.Memo[string, *Run]
	models *cache.Memo[string, *LoggedModel]
}

// CachedTracking makes a Tracking that remembers the answers of t, as long as they are
// believed and have room.
func CachedTracking(t Tracking, life Lifetime) Tracking {
	return &cachedTracking{
		Tracking: t,
		runs: cache.NewMemo[string](runsBytes,
			func(r *Run) int64 { return int64(len(r.JSON)) + 1000 },
			func(r *Run) time.Duration { return life(r.Final()) }),
		models: cache.NewMemo[string](10_000, nil, func(m *LoggedModel) time.Duration { return life(m.Final()) }),
	}
}

func (c *cachedTracking) Run(ctx context.Context, id string) (*Run, error) {
	return c.runs.Get(ctx, id, func(ctx context.Context) (*Run, error) { return c.Tracking.Run(ctx, id) })
}

func (c *cachedTracking) LoggedModel(ctx context.Context, id string) (*LoggedModel, error) {
	return c.models.Get(ctx, id, func(ctx context.Context) (*LoggedModel, error) { return c.Tracking.LoggedModel(ctx, id) })
}

// cachedRegistry remembers what was looked up by its name.
type cachedRegistry struct {
	Registry
	models   *cache.Memo[string, *RegisteredModel]
	versions *cache.Memo[[2]string, *Version] // by name and number
	prompts  *cache.Memo[[2]string, *Prompt]  // by the same
}

// CachedRegistry makes a Registry that remembers the answers of r.
func CachedRegistry(r Registry, life Lifetime) Registry {
	return &cachedRegistry{
		Registry: r,
		models:   cache.NewMemo[string](10_000, nil, func(*RegisteredModel) time.Duration { return life(false) }),
		versions: cache.NewMemo[[2]string](10_000, nil, func(v *Version) time.Duration { return life(v.Final()) }),
		prompts:  cache.NewMemo[[2]string](promptsBytes, (*Prompt).size, func(*Prompt) time.Duration { return life(false) }),
	}
}

func (c *cachedRegistry) RegisteredModel(ctx context.Context, name string) (*RegisteredModel, error) {
	return c.models.Get(ctx, name, func(ctx context.Context) (*RegisteredModel, error) { return c.Registry.RegisteredModel(ctx, name) })
}

func (c *cachedRegistry) Version(ctx context.Context, name, version string) (*Version, error) {
	return c.versions.Get(ctx, [2]string{name, version}, func(ctx context.Context) (*Version, error) {
		if m, ok := c.models.Asked(ctx, name); ok {
			for i := range m.Latest {
				if v := &m.Latest[i]; v.Name == name && v.Version == version && v.Source != "" && v.Status != "" && v.RunID != "" {
					ctx = context.WithValue(ctx, toldKey{}, v)
				}
			}
		}
		return c.Registry.Version(ctx, name, version)
	})
}

// Prompt is asked for as what may change: its aliases and tags do.
func (c *cachedRegistry) Prompt(ctx context.Context, name, version string) (*Prompt, error) {
	return c.prompts.Get(ctx, [2]string{name, version}, func(ctx context.Context) (*Prompt, error) { return c.Registry.Prompt(ctx, name, version) })
}

type toldKey struct{}

// told is the version of which a context asks a store, but for its URI, where the store
// has told of it a moment ago, with the registered model; nil where it has not.
func told(ctx context.Context) *Version {
	v, _ := ctx.Value(toldKey{}).(*Version)
	return v
}
