package resolve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// What the names of the model registry mean is told here: a version, and where its
// source leads.

// RegisteredModel gives a registered model with its aliases and latest
// versions.
func (r *Resolver) RegisteredModel(ctx context.Context, name string) (*meta.RegisteredModel, error) {
	return r.registry.RegisteredModel(ctx, name)
}

// Latest is the version that models:/<name>/latest means: the highest of the
// latest versions, or of those of one stage. A stage is matched in any case,
// as MLflow matches it; stage empty means any.
func Latest(m *meta.RegisteredModel, stage string) (meta.Version, bool) {
	var best meta.Version
	for _, v := range m.Latest {
		if stage != "" && !strings.EqualFold(v.Stage, stage) {
			continue
		}
		if best.Version == "" || meta.CompareVersions(v.Version, best.Version) > 0 {
			best = v
		}
	}
	return best, best.Version != ""
}

// Version gives a model version that has files. It never depends on a search, which
// may lag.
func (r *Resolver) Version(ctx context.Context, name, number string) (*meta.Version, error) {
	v, err := r.registry.Version(ctx, name, number)
	if err == nil && v.Prompt {
		// MLflow's client takes its source, "dummy-source", for a path.
		return nil, fmt.Errorf("%s is a prompt, which has no files (its URI is prompts:/%[1]s/%[2]s): %[3]w", name, number, fs.ErrNotExist)
	}
	return v, err
}

// VersionDir is models:/<name>/<version>.
func (r *Resolver) VersionDir(ctx context.Context, name, number string) (Dir, error) {
	return r.versionDir(ctx, name, number, 0, nil)
}

// maxHops bounds how often a version's source may lead to another model.
const maxHops = 8

func (r *Resolver) versionDir(ctx context.Context, name, number string, hops int, trail *[]Step) (Dir, error) {
	v, err := r.Version(ctx, name, number)
	if err != nil {
		return Dir{}, err
	}
	if trail != nil {
		*trail = append(*trail, Step{"version", name + " " + number, Shown(v.URI)})
	}
	o, final, err := r.follow(ctx, v, hops+1, trail)
	if err != nil {
		return Dir{}, err
	}
	o.Meta, o.Mtime, o.Final = metaOf(name, number), v.Created, v.Final() && final
	return o, nil
}

// follow goes to where a version's URI leads, be it a name of MLflow's or a
// place, and tells whether what is there is final, as far as MLflow says.
func (r *Resolver) follow(ctx context.Context, v *meta.Version, hops int, trail *[]Step) (o Dir, final bool, err error) {
	if v.Managed {
		o, err = r.at(ctx, managedPlace(v))
		return o, true, err
	}
	u, found, err := ParseURI(v.URI)
	switch {
	case err != nil:
		return Dir{}, false, err
	case !found:
		o, err = r.at(ctx, rootOf(v.URI, r.door(ctx, v)))
		return o, true, err
	}
	var p string
	if o, final, p, err = r.root(ctx, u, hops, trail); err == nil {
		o, err = r.descend(ctx, o, p)
	}
	return o, final, err
}

// root gives the directory that a name of MLflow's leads to, and the path below it.
// Each step of the way is appended to trail, where that is not nil.
func (r *Resolver) root(ctx context.Context, u URI, hops int, trail *[]Step) (o Dir, final bool, p string, err error) {
	if hops > maxHops {
		return Dir{}, false, "", errors.New("the sources of the model's versions lead in a circle")
	}
	step := func(kind, name, leads string) {
		if trail != nil {
			*trail = append(*trail, Step{kind, name, Shown(leads)})
		}
	}
	switch {
	case u.RunID != "":
		var run *meta.Run
		if run, err = r.Run(ctx, u.RunID); err == nil {
			step("run", run.ID, run.ArtifactURI)
			o, err = r.RunDir(ctx, run)
		}
	case u.ModelID != "":
		var m *meta.LoggedModel
		if m, err = r.LoggedModel(ctx, u.ModelID); err == nil {
			step("model", m.ID, m.ArtifactURI)
			o, err = r.modelDir(ctx, m)
		}
	case u.Prompt:
		if u, err = r.exact(ctx, u); err == nil {
			step("prompt", u.Name+" "+u.Version, "its text, in the model registry")
			o, err = r.PromptDir(ctx, u.Name, u.Version)
		}
	default:
		if u, err = r.exact(ctx, u); err == nil {
			o, err = r.versionDir(ctx, u.Name, u.Version, hops, trail)
		}
	}
	return o, o.Final, u.Path, err
}

// exact is a URI with a name, and the version that it means.
func (r *Resolver) exact(ctx context.Context, u URI) (URI, error) {
	number, err := r.Number(ctx, u)
	if other, ok := u.named(); ok && errors.Is(err, fs.ErrNotExist) {
		if n, oerr := r.Number(ctx, other); oerr == nil {
			u, number, err = other, n, nil
		}
	}
	return URI{Name: u.Name, Prompt: u.Prompt, Version: number, Path: u.Path, Inside: u.Inside}, err
}

// door is the tracking server's door to where a version's files lie: as a
// logged model, which its source names, or as a part of its run. Where the
// server's own artifact API leads there, none is needed.
func (r *Resolver) door(ctx context.Context, v *meta.Version) artifact.Door {
	switch s := scheme(v.URI); {
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
	dir, ok := relative(withoutQuery(run.ArtifactURI), withoutQuery(v.URI))
	if !ok {
		return artifact.Door{}
	}
	return artifact.Door{RunID: v.RunID, Dir: dir}
}

// Number is the version that a models:/ or prompts:/ URI with a name means;
// fs.ErrNotExist where it means none.
func (r *Resolver) Number(ctx context.Context, u URI) (string, error) {
	if u.Version != "" {
		return u.Version, nil
	}
	m, err := r.RegisteredModel(ctx, u.Name)
	if err != nil {
		return "", err
	}
	if u.Prompt && !m.Prompt {
		return "", fmt.Errorf("%s is a model, and no prompt: %w", u.Name, fs.ErrNotExist)
	}
	if u.Alias != "" && !strings.EqualFold(u.Alias, latest) {
		if v, ok := m.Aliases[u.Alias]; ok {
			return v, nil
		}
	} else if v, ok := Latest(m, u.Stage); ok {
		return v.Version, nil
	}
	if u.Alias == "" && m.Stageless {
		return "", fmt.Errorf("%v: Unity Catalog has no stages and calls no version the latest: name a version's number, or an alias: %w", u, fs.ErrNotExist)
	}
	return "", fmt.Errorf("%v: %w", u, fs.ErrNotExist)
}
