package resolve

import (
	"fmt"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/mlflow"
)

// URI is an artifact URI that names a thing of MLflow's rather than a place:
// runs:/<run_id>/<path> or one of the forms of models:/…. Of RunID, ModelID
// and Name one is set; with Name one of Version, Stage, Alias, or none for
// the latest version.
type URI struct {
	RunID   string
	ModelID string
	Name    string
	Version string
	Stage   string
	Alias   string
	Path    string // below it, without a slash at either end
}

// ParseURI reads a runs:/ or models:/ URI as the MLflow client does
// (mlflow.store.artifact.utils.models). found is false for any other scheme:
// the URI is then a storage place, for which nothing is parsed here.
func ParseURI(s string) (u URI, found bool, err error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || (scheme != "runs" && scheme != "models") {
		return URI{}, false, nil
	}
	bad := func(form string) (URI, bool, error) {
		return URI{}, true, fmt.Errorf("%q is no %s:/ URI: it must be %s", s, scheme, form)
	}
	rest, ok = strings.CutPrefix(rest, "/")
	if strings.HasPrefix(rest, "/") {
		return bad("of this tracking server, without a host")
	}
	rest = strings.TrimRight(rest, "/")
	first, path, _ := strings.Cut(rest, "/")
	if scheme == "runs" {
		if !ok || !mlflow.ValidRunID(first) {
			return bad("runs:/<run_id>/<path>")
		}
		return URI{RunID: first, Path: strings.Trim(path, "/")}, true, nil
	}
	switch at := strings.LastIndexByte(first, '@'); {
	case !ok || strings.TrimSpace(first) == "":
		return bad("models:/<name>/<version>, models:/<name>/<stage>, models:/<name>@<alias> or models:/<model_id>")
	case mlflow.ValidLoggedModelID(first):
		return URI{ModelID: first, Path: strings.Trim(path, "/")}, true, nil
	case at > 0 && at < len(first)-1 && !isVersion(strings.Trim(path, "/")):
		return URI{Name: first[:at], Alias: first[at+1:], Path: strings.Trim(path, "/")}, true, nil
	}
	which, path, _ := strings.Cut(path, "/")
	u = URI{Name: first, Path: strings.Trim(path, "/")}
	switch {
	case strings.TrimSpace(which) == "":
		return bad("models:/<name>/<version>, models:/<name>/<stage>, models:/<name>@<alias> or models:/<model_id>")
	case isVersion(which):
		u.Version = which
	case !strings.EqualFold(which, latest):
		u.Stage = which
	}
	return u, true, nil
}

const latest = "latest"

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
		s = "models:/" + u.Name + "@" + u.Alias
	case u.Version != "":
		s = "models:/" + u.Name + "/" + u.Version
	case u.Stage != "":
		s = "models:/" + u.Name + "/" + u.Stage
	default:
		s = "models:/" + u.Name + "/" + latest
	}
	if u.Path != "" {
		s += "/" + u.Path
	}
	return s
}

var _ fmt.Stringer = URI{}
