package resolve

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/answers"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Options make a Resolver.
type Options struct {
	Tracking meta.Store
	Registry meta.Store   // nil: Tracking
	Client   *rest.Client // of the tracking server; nil where there is none
	// RegistryClient is that of the registry, where it is a server of its own.
	RegistryClient *rest.Client
	Web            *rest.Client // without credentials, for every other address

	// FirstSerial is what the numbers of tables begin behind: of a process that goes on for
	// another, more than the other has counted to, such as the time.
	FirstSerial int

	// Buckets opens the buckets of object stores, by scheme.
	Buckets map[string]artifact.OpenBucket

	// Hosts opens the file systems of hosts, by scheme.
	Hosts map[string]artifact.OpenHost

	// Lent opens them with credentials that the registry lends, by scheme.
	Lent map[string]artifact.OpenLent

	// Access is the one kind of route to artifacts that is taken; [Auto] (empty)
	// lets what answers decide.
	Access artifact.Access

	// TTL is how long an answer is believed that may change (running runs,
	// aliases, which names there are); what is final is believed longer.
	TTL time.Duration // 10 s

	// Allowed is what a URI may open with the client's own keys and rights, where
	// a server names it; nil: everything but hosts.
	Allowed *Allowed

	// Silence is how long all routes to a directory of artifacts together may be
	// silent; 0: as long as each of them may.
	Silence time.Duration

	// Answers keeps what directories hold for the time in which their servers
	// can't be asked; nil: nothing does.
	Answers *answers.Answers

	// Cache is where tables are made; nil: one of their own.
	Cache *cache.Cache

	Log *slog.Logger
}

// finalTTLs is how many TTLs a final answer is believed: not for ever, since
// MLflow lets a user add artifacts to a run that has ended.
const finalTTLs = 6

// tablesBytes is how much memory tables that nobody reads may take.
const tablesBytes = 16 << 20

// Resolver answers what names mean. Its methods may be called by many at once.
type Resolver struct {
	opt Options
	log *slog.Logger

	tracking meta.Tracking
	registry meta.Registry
	lender   meta.Lender // nil: the registry lends nothing

	lost   lostParts
	likely likely

	stores      *cache.Memo[place, *artifact.Router]
	buckets     *cache.Memo[string, opened]
	hosts       *cache.Memo[string, artifact.FileSystem]
	lent        *cache.Memo[lentPlace, lentBucket]
	lentBefore  *cache.Memo[lentPlace, lentBucket]
	listings    *listings
	runModels   *cache.Memo[string, []meta.LoggedModel]
	experiments *cache.Memo[string, *Index[meta.Experiment]]
	datasets    *cache.Memo[string, *Index[meta.Dataset]]
	indexes     *cache.Memo[string, *Index[meta.Run]]
	tables      *tableSet
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
	if opt.Cache == nil {
		opt.Cache = cache.New(cache.Options{})
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
	r := &Resolver{
		opt:    opt,
		log:    opt.Log,
		lost:   lostParts{why: map[lostPart]string{}, skipped: map[Kind]skipped{}},
		stores: cache.NewMemo[place](10_000, nil, func(*artifact.Router) time.Duration { return lasting }),
		buckets: cache.NewMemo[string](1_000, nil, func(o opened) time.Duration {
			if o.err != nil {
				return time.Minute
			}
			return lasting
		}),
		hosts:       cache.NewMemo[string](1_000, nil, func(artifact.FileSystem) time.Duration { return lasting }),
		listings:    newListings(opt, final),
		runModels:   cache.NewMemo[string](10_000, nil, func([]meta.LoggedModel) time.Duration { return opt.TTL }),
		experiments: cache.NewMemo[string](1, nil, func(*Index[meta.Experiment]) time.Duration { return opt.TTL }),
		datasets:    cache.NewMemo[string](1, nil, func(*Index[meta.Dataset]) time.Duration { return opt.TTL }),
		indexes: cache.NewMemo[string](500_000,
			func(r *Index[meta.Run]) int64 { return int64(len(r.Items)) + 8 },
			func(*Index[meta.Run]) time.Duration { return opt.TTL }),
		tables: newTableSet(opt.Cache, opt.FirstSerial, final),
	}
	r.lender = meta.LenderOf(opt.Registry)
	r.lent = cache.NewMemo[lentPlace](1_000, nil, lentBucket.renewedIn)
	r.lentBefore = cache.NewMemo[lentPlace](1_000, nil, lentBucket.left)
	r.tracking = meta.CachedTracking(connecting{opt.Tracking, r.connect}, final)
	r.registry = meta.CachedRegistry(connecting{opt.Registry, r.connect}, final)
	return r
}

// TTL is how long an answer that is final, or is not, is believed.
func (r *Resolver) TTL(final bool) time.Duration {
	if final {
		return finalTTLs * r.opt.TTL
	}
	return r.opt.TTL
}

// Tracking is the tracking store, for paging searches.
func (r *Resolver) Tracking() meta.Tracking { return r.tracking }

// Registry is the model registry, for paging searches.
func (r *Resolver) Registry() meta.Registry { return r.registry }

// Run gives a run.
func (r *Resolver) Run(ctx context.Context, id string) (*meta.Run, error) {
	if !meta.ValidRunID(id) {
		return nil, fmt.Errorf("run %q: %w", id, fs.ErrNotExist)
	}
	return r.tracking.Run(ctx, id)
}

// modelsOf gives the logged models of a run, one for each name: the newest,
// which is what the client's search finds first.
func (r *Resolver) modelsOf(ctx context.Context, run *meta.Run) ([]meta.LoggedModel, error) {
	return r.runModels.Get(ctx, run.ID, func(ctx context.Context) ([]meta.LoggedModel, error) {
		models, err := all(ctx, func(ctx context.Context, token string) (meta.Page[meta.LoggedModel], error) {
			return r.searchModels(ctx, run, token)
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

// RunDir is runs:/<run_id>/.
func (r *Resolver) RunDir(ctx context.Context, run *meta.Run) (Dir, error) {
	o, err := r.at(ctx, rootOf(run.ArtifactURI, artifact.Door{RunID: run.ID}))
	if err != nil {
		return Dir{}, err
	}
	o.Mtime, o.Final = run.Mtime(), run.Final()
	models, err := r.modelsOf(ctx, run)
	if err != nil {
		return Dir{}, err
	}
	for i := range models {
		m, err := r.modelDir(ctx, &models[i])
		if err != nil {
			return Dir{}, err
		}
		o.Mounts = append(o.Mounts, Mount{models[i].Name, m})
	}
	return o, nil
}

// at is the directory at a place.
func (r *Resolver) at(ctx context.Context, p place) (Dir, error) {
	s, err := r.store(ctx, p)
	return Dir{Parts: []Part{{Store: s}}}, err
}

// LoggedModel gives a logged model by its id.
func (r *Resolver) LoggedModel(ctx context.Context, id string) (*meta.LoggedModel, error) {
	if !meta.ValidLoggedModelID(id) {
		return nil, fmt.Errorf("logged model %q: %w", id, fs.ErrNotExist)
	}
	return r.tracking.LoggedModel(ctx, id)
}

// LoggedModelDir is models:/<model_id>.
func (r *Resolver) LoggedModelDir(ctx context.Context, id string) (Dir, error) {
	m, err := r.LoggedModel(ctx, id)
	if err != nil {
		return Dir{}, err
	}
	return r.modelDir(ctx, m)
}

func (r *Resolver) modelDir(ctx context.Context, m *meta.LoggedModel) (Dir, error) {
	o, err := r.at(ctx, rootOf(m.ArtifactURI, artifact.Door{ModelID: m.ID}))
	o.Meta, o.Mtime, o.Final = metaOf("", ""), m.Created, m.Final()
	return o, err
}
