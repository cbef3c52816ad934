package resolve

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/mlflow"
)

// storage gives the store at a storage URI, whose root is the URI's place.
func (r *Resolver) storage(uri string) (artifact.Store, error) {
	scheme, _, ok := strings.Cut(uri, ":")
	if !ok || strings.ContainsRune(scheme, '/') {
		return r.local(uri)
	}
	switch scheme = strings.ToLower(scheme); scheme {
	case "file":
		u, err := url.Parse(uri)
		if err != nil || (u.Host != "" && u.Host != "localhost") {
			return artifact.Unsupported("artifacts at a file:// URI of another host"), nil
		}
		return r.local(cmp.Or(u.Path, u.Opaque))
	case "mlflow-artifacts":
		return r.proxied(uri)
	case "http", "https":
		return r.web(uri)
	}
	return artifact.Unsupported(fmt.Sprintf("artifacts with the scheme %q", scheme)), nil
}

func (r *Resolver) local(path string) (artifact.Store, error) {
	if r.opt.NoLocal {
		return artifact.Unsupported("artifacts at a path of this machine, which a tracking server names, while --allow-other shows them to every user"), nil
	}
	return artifact.NewLocal(path, r.log)
}

// proxied follows mlflow.store.artifact.mlflow_artifacts_repo.resolve_uri:
// the scheme and the path's prefix are the tracking server's, the host is the
// URI's where it has one.
func (r *Resolver) proxied(uri string) (artifact.Store, error) {
	if r.opt.Client == nil {
		return artifact.Unsupported(`artifacts with the scheme "mlflow-artifacts" need a tracking server, and the tracking URI is no http:// address`), nil
	}
	// Cut by hand: an artifact path may hold anything, percent signs included.
	rest := uri[strings.IndexByte(uri, ':')+1:]
	host := r.opt.Client.Base().Host
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		h, path, _ := strings.Cut(after, "/")
		if h != "" {
			host = h
		}
		rest = path
	}
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	base := url.URL{Scheme: r.opt.Client.Base().Scheme, Host: host, Path: r.opt.Client.Base().Path + artifact.ProxyPath}
	root := strings.Trim(rest, "/")
	// An URI that repeats the API's own path means the same place.
	if after, ok := strings.CutPrefix(root+"/", strings.Trim(artifact.ProxyPath, "/")+"/"); ok {
		root = after
	}
	return artifact.NewProxy(r.opt.Client, base.String(), root), nil
}

// web is an http(s) address of a tracking server's artifact API.
func (r *Resolver) web(uri string) (artifact.Store, error) {
	const mark = "/mlflow-artifacts/artifacts"
	u, err := url.Parse(uri)
	if err != nil {
		return artifact.Unsupported("artifacts at an http:// URI that can't be parsed"), nil
	}
	i := strings.Index(u.Path, mark)
	if i < 0 {
		return artifact.Unsupported(fmt.Sprintf("artifacts at an %s:// address that is no tracking server's artifact API", u.Scheme)), nil
	}
	base := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path[:i+len(mark)]}
	client := r.opt.Client
	if client == nil {
		// No tracking server, so there are no credentials that are for this host.
		client, err = mlflow.NewClient(base.String(), func(string) string { return "" }, r.log)
		if err != nil {
			return nil, err
		}
	}
	return artifact.NewProxy(client, base.String(), u.Path[i+len(mark):]), nil
}
