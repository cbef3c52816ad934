package resolve

import (
	"path"
	"regexp"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// What a dbfs: URI means is told here, where the tracking server is a Databricks
// workspace (mlflow.store.artifact.dbfs_artifact_repo and artifact_repository_registry).

// dbfsPath is the absolute path that a dbfs: URI names in the workspace of the client;
// false where it names another one's, to which its profile would lead. The client's own
// token is for its own workspace.
func dbfsPath(uri string) (string, bool) {
	_, p, _ := strings.Cut(uri, ":")
	if after, ok := strings.CutPrefix(p, "//"); ok && !strings.HasPrefix(after, "/") {
		host, rest, _ := strings.Cut(after, "/")
		if host != "databricks" {
			return "", false
		}
		p = rest
	}
	return path.Clean("/" + p), true
}

var (
	ofTracking = regexp.MustCompile(`^/databricks/mlflow-tracking/[^/]+/`)
	ofModel    = regexp.MustCompile(`^/databricks/mlflow-tracking/[^/]+/logged_models/([^/]+)/artifacts(?:/(.*))?$`)
	ofRun      = regexp.MustCompile(`^/databricks/mlflow-tracking/[^/]+/([^/]+)/artifacts(?:/(.*))?$`)
	inVolume   = regexp.MustCompile(`^/[vV]olumes?/[^/]+/[^/]+/[^/]+`)
)

// databricks are the routes to a dbfs: place.
func (r *Resolver) databricks(p place) []artifact.Route {
	at, ok := dbfsPath(p.uri)
	switch {
	case !ok:
		return unsupported(artifact.Direct, "artifacts at a dbfs: URI of another workspace's profile")
	case ofTracking.MatchString(at):
		door := p.door
		if m := ofModel.FindStringSubmatch(at); m != nil && door == (artifact.Door{}) {
			door = artifact.Door{ModelID: m[1], Dir: m[2]}
		} else if m := ofRun.FindStringSubmatch(at); m != nil && door == (artifact.Door{}) {
			door = artifact.Door{RunID: m[1], Dir: m[2]}
		}
		if door == (artifact.Door{}) {
			return unsupported(artifact.Presigned, "a dbfs: URI below databricks/mlflow-tracking that is of no run and no logged model")
		}
		return []artifact.Route{r.signedBy(artifact.NewDatabricks(r.opt.Client, door))}
	case !r.opt.Allowed.opens(p):
		return unsupported(artifact.Server, "%s is named by the workspace, while --allow-other shows the mount to every user: this client's own token opens only artifacts of runs and models", Shown(p.uri))
	case inVolume.MatchString(at):
		return []artifact.Route{{Access: artifact.Server, Says: "the Files API of the workspace", Store: artifact.NewWorkspace(r.opt.Client, at)}}
	}
	return []artifact.Route{{Access: artifact.Server, Says: "DBFS, through the workspace", Store: artifact.NewDBFS(r.opt.Client, at)}}
}

// signer is a store of a workspace's that signs URLs for what it lists.
type signer interface {
	artifact.Store
	artifact.Signer
}

func (r *Resolver) signedBy(s signer) artifact.Route {
	return artifact.Route{Access: artifact.Presigned, Says: "the object store itself, by URLs that the workspace signs", Store: artifact.NewSigned(s, s, r.opt.Web)}
}

// managedByWorkspace are the routes to the files of a version in a workspace's registry,
// but those by credentials that it lends: for a model of Unity Catalog its Files API, and
// for one of the workspace's own registry the URLs that this signs.
func (r *Resolver) managedByWorkspace(c *rest.Client, of managed) []artifact.Route {
	if r.lender == nil {
		return []artifact.Route{r.signedBy(artifact.NewDatabricks(c, artifact.Door{Model: of.name, Version: of.number}))}
	}
	w := artifact.NewWorkspace(c, "/Models/"+strings.ReplaceAll(of.name, ".", "/")+"/"+of.number)
	return []artifact.Route{
		r.signedBy(w),
		{Access: artifact.Server, Says: "the Files API of the workspace", Store: w},
	}
}
