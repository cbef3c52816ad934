package resolve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/answers"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/mlflow"
)

// Options make a Resolver.
type Options struct {
	Tracking mlflow.Store
	Registry mlflow.Store   // nil: Tracking
	Client   *mlflow.Client // of the tracking server; nil where there is none
	Web      *mlflow.Client // without credentials, for every other address

	// Buckets opens the buckets of object stores, by scheme.
	Buckets map[string]artifact.OpenBucket

	// Access is the one kind of route to artifacts that is taken; [Auto] (empty)
	// lets what answers decide.
	Access artifact.Access

	// TTL is how long an answer is believed that may change (running runs,
	// aliases, which names there are); what is final is believed longer.
	TTL time.Duration // 10 s

	// Allowed is what a URI may open with the client's own keys and rights, where
	// a server names it and other users see it; nil: everything.
	Allowed *Allowed

	// Silence is how long all routes to a directory of artifacts together may be
	// silent; 0: as long as each of them may.
	Silence time.Duration

	// Answers keeps what directories hold for the time in which their servers
	// can't be asked; nil: nothing does.
	Answers *answers.Answers

	Log *slog.Logger
}

// finalTTLs is how many TTLs a final answer is believed: not for ever, since
// MLflow lets a user add artifacts to a run that has ended.
const finalTTLs = 6

// tablesBytes is how much of tables is remembered, and runsBytes how much of runs.
const (
	tablesBytes = 16 << 20
	runsBytes   = 16 << 20
)

// Resolver answers what names mean. Its methods may be called by many at once.
type Resolver struct {
	opt Options
	log *slog.Logger

	lost lostParts

	stores      *cache.Memo[place, artifact.Store]
	buckets     *cache.Memo[string, opened]
	listings    *cache.Memo[string, listing]
	runs        *cache.Memo[string, *mlflow.Run]
	runModels   *cache.Memo[string, []mlflow.LoggedModel]
	models      *cache.Memo[string, *mlflow.LoggedModel]
	registered  *cache.Memo[string, *mlflow.RegisteredModel]
	versions    *cache.Memo[[2]string, version]
	experiments *cache.Memo[string, *Index[mlflow.Experiment]]
	indexes     *cache.Memo[string, *Index[mlflow.Run]]
	tables      *cache.Memo[string, table]
}

// version is a model version with the place of its files.
type version struct {
	mlflow.Version
	uri string
}

// New makes a Resolver.
func New(opt Options) *Resolver {
	if opt.TTL <= 0 {
		opt.TTL = 10 * time.Second
	}
	if opt.Registry == nil {
		opt.Registry = opt.Tracking
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Access == "" {
		opt.Access = Auto
	}
	const lasting = 365 * 24 * time.Hour
	final := func(f bool) time.Duration {
		if f {
			return finalTTLs * opt.TTL
		}
		return opt.TTL
	}
	return &Resolver{
		opt:    opt,
		log:    opt.Log,
		lost:   lostParts{why: map[Part]string{}},
		stores: cache.NewMemo[place](10_000, nil, func(artifact.Store) time.Duration { return lasting }),
		buckets: cache.NewMemo[string](1_000, nil, func(o opened) time.Duration {
			if o.err != nil {
				return time.Minute
			}
			return lasting
		}),
		listings: cache.NewMemo[string](500_000,
			func(l listing) int64 { return int64(len(l.entries)) + 8 },
			func(l listing) time.Duration { return final(l.final) }),
		runs: cache.NewMemo[string](runsBytes,
			func(r *mlflow.Run) int64 { return int64(len(r.JSON)) + 1000 },
			func(r *mlflow.Run) time.Duration { return final(r.Final()) }),
		runModels:   cache.NewMemo[string](10_000, nil, func([]mlflow.LoggedModel) time.Duration { return opt.TTL }),
		models:      cache.NewMemo[string](10_000, nil, func(m *mlflow.LoggedModel) time.Duration { return final(m.Final()) }),
		registered:  cache.NewMemo[string](10_000, nil, func(*mlflow.RegisteredModel) time.Duration { return opt.TTL }),
		versions:    cache.NewMemo[[2]string](10_000, nil, func(v version) time.Duration { return final(v.Final()) }),
		experiments: cache.NewMemo[string](1, nil, func(*Index[mlflow.Experiment]) time.Duration { return opt.TTL }),
		indexes: cache.NewMemo[string](500_000,
			func(r *Index[mlflow.Run]) int64 { return int64(len(r.Items)) + 8 },
			func(*Index[mlflow.Run]) time.Duration { return opt.TTL }),
		tables: cache.NewMemo[string](tablesBytes,
			func(t table) int64 { return int64(len(t.text)) + 100 },
			func(t table) time.Duration { return final(t.final) }),
	}
}

// TTL is how long an answer that is final, or is not, is believed.
func (r *Resolver) TTL(final bool) time.Duration {
	if final {
		return finalTTLs * r.opt.TTL
	}
	return r.opt.TTL
}

// Tracking is the tracking store, for paging searches.
func (r *Resolver) Tracking() mlflow.Store { return r.opt.Tracking }

// Registry is the model registry, for paging searches.
func (r *Resolver) Registry() mlflow.Store { return r.opt.Registry }

// Run gives a run.
func (r *Resolver) Run(ctx context.Context, id string) (*mlflow.Run, error) {
	if !mlflow.ValidRunID(id) {
		return nil, fmt.Errorf("run %q: %w", id, fs.ErrNotExist)
	}
	return r.runs.Get(ctx, id, func(ctx context.Context) (*mlflow.Run, error) {
		return r.opt.Tracking.Run(ctx, id)
	})
}

// modelsOf gives the logged models of a run, one for each name: the newest,
// which is what the client's search finds first.
func (r *Resolver) modelsOf(ctx context.Context, run *mlflow.Run) ([]mlflow.LoggedModel, error) {
	return r.runModels.Get(ctx, run.ID, func(ctx context.Context) ([]mlflow.LoggedModel, error) {
		models, err := all(ctx, func(ctx context.Context, token string) (mlflow.Page[mlflow.LoggedModel], error) {
			return r.SearchLoggedModels(ctx, []string{run.ExperimentID}, run.ID, token)
		})
		seen, unique := map[string]bool{}, models[:0]
		for _, m := range models {
			if seen[m.Name] {
				continue
			}
			if why := artifact.BadName(m.Name); why != "" {
				r.log.Warn("a logged model is left out of its run's directory: it "+why, "run", run.ID, "model", m.ID)
				continue
			}
			seen[m.Name] = true
			unique = append(unique, m)
		}
		return unique, err
	})
}

// RunOrigin is runs:/<run_id>/.
func (r *Resolver) RunOrigin(ctx context.Context, run *mlflow.Run) (Origin, error) {
	o, err := r.at(ctx, place{run.ArtifactURI, artifact.Door{RunID: run.ID}})
	if err != nil {
		return Origin{}, err
	}
	o.Mtime, o.Final = run.Mtime(), run.Final()
	models, err := r.modelsOf(ctx, run)
	if err != nil {
		return Origin{}, err
	}
	for i := range models {
		m, err := r.modelOrigin(ctx, &models[i])
		if err != nil {
			return Origin{}, err
		}
		o.Mounts = append(o.Mounts, Mount{models[i].Name, m})
	}
	return o, nil
}

// at is the directory at a place.
func (r *Resolver) at(ctx context.Context, p place) (Origin, error) {
	s, err := r.store(ctx, p)
	return Origin{Layers: []Layer{{Store: s}}}, err
}

// LoggedModel gives a logged model by its id.
func (r *Resolver) LoggedModel(ctx context.Context, id string) (*mlflow.LoggedModel, error) {
	if !mlflow.ValidLoggedModelID(id) {
		return nil, fmt.Errorf("logged model %q: %w", id, fs.ErrNotExist)
	}
	return r.models.Get(ctx, id, func(ctx context.Context) (*mlflow.LoggedModel, error) {
		return r.opt.Tracking.LoggedModel(ctx, id)
	})
}

// LoggedModelOrigin is models:/<model_id>.
func (r *Resolver) LoggedModelOrigin(ctx context.Context, id string) (Origin, error) {
	m, err := r.LoggedModel(ctx, id)
	if err != nil {
		return Origin{}, err
	}
	return r.modelOrigin(ctx, m)
}

func (r *Resolver) modelOrigin(ctx context.Context, m *mlflow.LoggedModel) (Origin, error) {
	o, err := r.at(ctx, place{m.ArtifactURI, artifact.Door{ModelID: m.ID}})
	o.Meta, o.Mtime, o.Final = metaOf("", ""), m.Created, m.Final()
	return o, err
}

// RegisteredModel gives a registered model with its aliases and latest
// versions.
func (r *Resolver) RegisteredModel(ctx context.Context, name string) (*mlflow.RegisteredModel, error) {
	return r.registered.Get(ctx, name, func(ctx context.Context) (*mlflow.RegisteredModel, error) {
		return r.opt.Registry.RegisteredModel(ctx, name)
	})
}

// Latest is the version that models:/<name>/latest means: the highest of the
// latest versions, or of those of one stage. A stage is matched in any case,
// as MLflow matches it; stage empty means any.
func Latest(m *mlflow.RegisteredModel, stage string) (mlflow.Version, bool) {
	var best mlflow.Version
	for _, v := range m.Latest {
		if stage != "" && !strings.EqualFold(v.Stage, stage) {
			continue
		}
		if best.Version == "" || mlflow.CompareVersions(v.Version, best.Version) > 0 {
			best = v
		}
	}
	return best, best.Version != ""
}

func (r *Resolver) version(ctx context.Context, name, number string) (version, error) {
	return r.versions.Get(ctx, [2]string{name, number}, func(ctx context.Context) (version, error) {
		v, err := r.opt.Registry.Version(ctx, name, number)
		if err == nil && v.Prompt {
			// MLflow's client takes its source, "dummy-source", for a path.
			err = fmt.Errorf("%s is a prompt, which has no files: %w", name, fs.ErrNotExist)
		}
		if err != nil {
			return version{}, err
		}
		uri, err := r.opt.Registry.DownloadURI(ctx, name, number)
		return version{*v, uri}, err
	})
}

// Version gives a model version. It never depends on a search, which may lag.
func (r *Resolver) Version(ctx context.Context, name, number string) (*mlflow.Version, error) {
	v, err := r.version(ctx, name, number)
	return &v.Version, err
}

// VersionOrigin is models:/<name>/<version>.
func (r *Resolver) VersionOrigin(ctx context.Context, name, number string) (Origin, error) {
	return r.versionOrigin(ctx, name, number, 0, nil)
}

// maxHops bounds how often a version's source may lead to another model.
const maxHops = 8

func (r *Resolver) versionOrigin(ctx context.Context, name, number string, hops int, trail *[]Step) (Origin, error) {
	v, err := r.version(ctx, name, number)
	if err != nil {
		return Origin{}, err
	}
	if trail != nil {
		*trail = append(*trail, Step{"version", name + " " + number, Shown(v.uri)})
	}
	o, final, err := r.follow(ctx, v, hops+1, trail)
	if err != nil {
		return Origin{}, err
	}
	o.Meta, o.Mtime, o.Final = metaOf(name, number), v.Created, v.Final() && final
	return o, nil
}

// follow goes to where a version's URI leads, be it a name of MLflow's or a
// place, and tells whether what is there is final, as far as MLflow says.
func (r *Resolver) follow(ctx context.Context, v version, hops int, trail *[]Step) (o Origin, final bool, err error) {
	u, found, err := ParseURI(v.uri)
	switch {
	case err != nil:
		return Origin{}, false, err
	case !found:
		o, err = r.at(ctx, place{v.uri, r.door(ctx, v)})
		return o, true, err
	}
	var p string
	if o, final, p, err = r.named(ctx, u, hops, trail); err == nil {
		o, err = r.descend(ctx, o, p)
	}
	return o, final, err
}

// named gives the root that a name of MLflow's leads to, and the path below it.
// Each step of the way is appended to trail, where that is not nil.
func (r *Resolver) named(ctx context.Context, u URI, hops int, trail *[]Step) (o Origin, final bool, p string, err error) {
	if hops > maxHops {
		return Origin{}, false, "", errors.New("the sources of the model's versions lead in a circle")
	}
	step := func(kind, name, leads string) {
		if trail != nil {
			*trail = append(*trail, Step{kind, name, Shown(leads)})
		}
	}
	switch {
	case u.RunID != "":
		var run *mlflow.Run
		if run, err = r.Run(ctx, u.RunID); err == nil {
			step("run", run.ID, run.ArtifactURI)
			o, err = r.RunOrigin(ctx, run)
		}
	case u.ModelID != "":
		var m *mlflow.LoggedModel
		if m, err = r.LoggedModel(ctx, u.ModelID); err == nil {
			step("model", m.ID, m.ArtifactURI)
			o, err = r.modelOrigin(ctx, m)
		}
	default:
		var number string
		number, err = r.Number(ctx, u)
		if other, ok := u.named(); ok && errors.Is(err, fs.ErrNotExist) {
			if n, oerr := r.Number(ctx, other); oerr == nil {
				u, number, err = other, n, nil
			}
		}
		if err == nil {
			o, err = r.versionOrigin(ctx, u.Name, number, hops, trail)
		}
	}
	return o, o.Final, u.Path, err
}

// door is the tracking server's door to where a version's files lie: as a
// logged model, which its source names, or as a part of its run. Where the
// server's own artifact API leads there, none is needed.
func (r *Resolver) door(ctx context.Context, v version) artifact.Door {
	switch s := scheme(v.uri); {
	case r.opt.Client == nil, s == "mlflow-artifacts", s == "http", s == "https":
		return artifact.Door{}
	}
	if u, _, err := ParseURI(v.Source); err == nil && u.ModelID != "" && u.Path == "" {
		return artifact.Door{ModelID: u.ModelID}
	}
	if v.RunID == "" {
		return artifact.Door{}
	}
	run, err := r.Run(ctx, v.RunID)
	if err != nil {
		return artifact.Door{} // a run that is gone for good, say
	}
	dir, ok := relative(run.ArtifactURI, v.uri)
	if !ok {
		return artifact.Door{}
	}
	return artifact.Door{RunID: v.RunID, Dir: dir}
}

// Number is the version that a models:/ URI with a name means; fs.ErrNotExist
// where it means none.
func (r *Resolver) Number(ctx context.Context, u URI) (string, error) {
	if u.Version != "" {
		return u.Version, nil
	}
	m, err := r.RegisteredModel(ctx, u.Name)
	if err != nil {
		return "", err
	}
	if u.Alias != "" && !strings.EqualFold(u.Alias, latest) {
		if v, ok := m.Aliases[u.Alias]; ok {
			return v, nil
		}
	} else if v, ok := Latest(m, u.Stage); ok {
		return v.Version, nil
	}
	return "", fmt.Errorf("%v: %w", u, fs.ErrNotExist)
}
