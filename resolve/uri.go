package resolve

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// URI is an artifact URI that names a thing of MLflow's rather than a place:
// runs:/<run_id>/<path> or one of the forms of models:/… and prompts:/…. Of RunID,
// ModelID and Name one is set; with Name one of Version, Stage, Alias, or none for
// the latest version.
type URI struct {
	RunID   string
	ModelID string
	Name    string
	Prompt  bool // Name is a prompt's
	Version string
	Stage   string
	Alias   string
	Path    string // below it, without a slash at either end, and of no empty parts

	// Inside says that the URI ends in a slash behind its path: what is in the
	// directory is meant, and not the directory itself. MLflow's client makes a
	// difference for runs:/ alone.
	Inside bool
}

// ParseURI reads a runs:/, models:/ or prompts:/ URI as the MLflow client does
// (mlflow.store.artifact.utils.models, MlflowClient.parse_prompt_uri), which knows no
// path behind the last. found is false for any other scheme: the URI is then a storage
// place, for which nothing is parsed here.
func ParseURI(s string) (u URI, found bool, err error) {
	scheme, rest, ok := strings.Cut(s, ":")
	scheme = strings.ToLower(scheme)
	if !ok || (scheme != "runs" && scheme != "models" && scheme != "prompts") {
		return URI{}, false, nil
	}
	bad := func(form string) (URI, bool, error) {
		return URI{}, true, fmt.Errorf("%q is no %s:/ URI: it must be %s", s, scheme, form)
	}
	rest = strings.Replace(rest, "///", "/", 1) // an empty host
	rest, ok = strings.CutPrefix(rest, "/")
	if strings.HasPrefix(rest, "/") {
		return bad("of this tracking server, without a host")
	}
	whole := rest
	rest = strings.TrimRight(rest, "/")
	first, path, _ := strings.Cut(rest, "/")
	if scheme == "runs" {
		if !ok || !meta.ValidRunID(first) {
			return bad("runs:/<run_id>/<path>")
		}
		u = URI{RunID: first, Path: parts(path)}
		u.Inside = u.Path != "" && len(whole) > len(rest)
		return u, true, nil
	}
	at := strings.LastIndexByte(first, '@')
	prompt := scheme == "prompts"
	forms := "models:/<name>/<version>, models:/<name>/<stage>, models:/<name>@<alias> or models:/<model_id>"
	if prompt {
		forms = "prompts:/<name>/<version> or prompts:/<name>@<alias>"
	}
	switch {
	case !ok || strings.TrimSpace(first) == "":
		return bad(forms)
	case meta.ValidLoggedModelID(first) && !prompt:
		return URI{ModelID: first, Path: parts(path)}, true, nil
	case strings.HasPrefix(path, "/"):
		return bad("without an empty part behind the name")
	case at > 0 && strings.TrimSpace(first[at+1:]) != "":
		return URI{Name: first[:at], Prompt: prompt, Alias: first[at+1:], Path: parts(path)}, true, nil
	}
	which, path, _ := strings.Cut(path, "/")
	u = URI{Name: first, Prompt: prompt, Path: parts(path)}
	switch {
	case at >= 0 || strings.TrimSpace(which) == "" || strings.HasPrefix(path, "/"):
		return bad(forms)
	case isVersion(which):
		u.Version = which
	case prompt && !strings.EqualFold(which, latest): // a prompt has no stages
		return bad(forms)
	case !strings.EqualFold(which, latest):
		u.Stage = which
	}
	return u, true, nil
}

const latest = "latest"

// parts is a path without empty parts.
func parts(path string) string {
	return strings.Join(strings.FieldsFunc(path, func(r rune) bool { return r == '/' }), "/")
}

// named is what a URI of an alias means where there is no such alias: a version of
// a model whose name holds an @. MLflow's client knows no URI for that.
func (u URI) named() (URI, bool) {
	which, path, _ := strings.Cut(u.Path, "/")
	v := URI{Name: u.Name + "@" + u.Alias, Prompt: u.Prompt, Path: path}
	if isVersion(which) {
		v.Version = which
	}
	return v, u.Alias != "" && (v.Version != "" || strings.EqualFold(which, latest))
}

// isVersion tells whether s is a version number.
func isVersion(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// String is the URI as ParseURI reads it.
func (u URI) String() string {
	var s string
	switch {
	case u.RunID != "":
		s = "runs:/" + u.RunID
	case u.ModelID != "":
		s = "models:/" + u.ModelID
	case u.Alias != "":
		s = u.scheme() + u.Name + "@" + u.Alias
	default:
		s = u.scheme() + u.Name + "/" + cmp.Or(u.Version, u.Stage, latest)
	}
	if u.Path != "" {
		s += "/" + u.Path
	}
	if u.Inside {
		s += "/"
	}
	return s
}

var _ fmt.Stringer = URI{}

// scheme is what stands before a name.
func (u URI) scheme() string {
	if u.Prompt {
		return "prompts:/"
	}
	return "models:/"
}
