package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Auto is the artifact access that lets what answers decide.
const Auto artifact.Access = "auto"

// place is a directory at a storage URI. door is what the tracking server
// knows it as; a zero door is a place that it does not know. typed says that the user
// himself named it, and no store of metadata.
type place struct {
	uri   string
	door  artifact.Door
	typed bool
	of    managed // the version whose files the registry manages there; zero where it manages none
}

// rootOf is the place that MLflow names as a root of artifacts.
func rootOf(uri string, door artifact.Door) place { return place{uri: withoutQuery(uri), door: door} }

// withoutQuery is a storage URI as MLflow's artifact repositories read it: what stands
// behind a ? or a # is a query or a fragment to them (urllib.parse), and no part of a
// key. A path of this machine has none, and a web address keeps its own.
func withoutQuery(uri string) string {
	switch scheme(uri) {
	case "", "file", "http", "https":
		return uri
	}
	if i := strings.IndexAny(uri, "?#"); i >= 0 {
		return uri[:i]
	}
	return uri
}

// store gives the store at a place, whose root is the place. What it found
// out about the routes is kept as long as the store is.
func (r *Resolver) store(ctx context.Context, p place) (*artifact.Router, error) {
	return r.stores.Get(cache.NotAnew(ctx), p, func(context.Context) (*artifact.Router, error) {
		id, routes, err := r.routes(p)
		if err != nil {
			return nil, err
		}
		var allowed []artifact.Route
		for _, w := range routes {
			if r.opt.Access == Auto || r.opt.Access == w.Access {
				allowed = append(allowed, w)
			}
		}
		if len(routes) == 0 {
			return nil, fmt.Errorf("no route leads to %s", Shown(p.uri))
		}
		if len(allowed) == 0 {
			allowed = unsupported(r.opt.Access, "%s has no access of the kind %q, only %s", Shown(p.uri), r.opt.Access, names(routes))
			id = allowed[0].Store.ID()
		}
		return artifact.NewRouter(id, Shown(p.uri), allowed, r.opt.Silence), nil
	})
}

func names(routes []artifact.Route) string {
	var out []string
	for _, w := range routes {
		out = append(out, string(w.Access))
	}
	return strings.Join(out, " and ")
}

// Shown is a storage URI as it may stand in a log. Of an object store's, the
// key is shown whole, for it may hold anything; what stands before an @ is a
// container or a bucket, or in an s3:// or gs:// URI, where nothing should be,
// perhaps a password.
func Shown(uri string) string {
	s := scheme(uri)
	atHost := s == "wasbs" || s == "abfss" || s == "r2" || s == "b2"
	if !atHost && s != "s3" && s != "gs" {
		return rest.Redact(uri)
	}
	host, key, slash := strings.Cut(strings.TrimPrefix(uri[len(s)+1:], "//"), "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 && (!atHost || strings.ContainsRune(host[:i], ':')) {
		host = host[i+1:]
	}
	if before, token, ok := strings.Cut(key, "?"); ok && strings.Contains(token, "sig=") {
		key = before // a shared access signature that somebody put there
	}
	if slash {
		key = "/" + key
	}
	return s + "://" + host + key
}

// scheme is a storage URI's scheme in lower case; empty for a path.
func scheme(uri string) string {
	s, _, ok := strings.Cut(uri, ":")
	if !ok || strings.ContainsAny(s, "/.") {
		return ""
	}
	return strings.ToLower(s)
}

// unsupported is the one route to what nothing here reads.
func unsupported(access artifact.Access, format string, args ...any) []artifact.Route {
	why := artifact.Unsupported(fmt.Sprintf(format, args...))
	return []artifact.Route{{Access: access, Says: "nothing here reads it", Store: why}}
}

// routes are the routes to a place, in the order in which they are tried.
func (r *Resolver) routes(p place) (id string, routes []artifact.Route, err error) {
	if p.of != (managed{}) {
		return r.managed(p)
	}
	closed := ""
	switch s := scheme(p.uri); s {
	case "mlflow-artifacts":
		routes = r.proxied(p.uri)
	case "http", "https":
		routes, err = r.web(p.uri)
	case "dbfs":
		if r.opt.Client.Databricks() {
			routes = r.databricks(p)
			break
		}
		fallthrough
	default:
		onDisk := s == "" || s == "file"
		served := r.served(p, onDisk)
		switch {
		case (onDisk || r.opt.Buckets[s] != nil || r.opt.Hosts[s] != nil) && !r.opt.Allowed.opens(p):
			routes, closed = refused(p.uri), "\x00closed"
		case onDisk:
			routes, err = r.local(p, len(served) > 0)
		case r.opt.Hosts[s] != nil:
			routes = r.host(s, p)
		default:
			routes = r.bucket(s, p.uri)
		}
		routes = append(routes, served...)
		if len(routes) == 0 {
			routes = unsupported(artifact.Direct, "artifacts with the scheme %q, which only a tracking server that has them could send", s)
		}
	}
	if err != nil || len(routes) == 0 {
		return "", nil, err
	}
	// What a mount keeps of a place that it may open itself, in memory or in a cache
	// directory, is not what another shows of it.
	return routes[len(routes)-1].Store.ID() + closed, routes, nil
}

// refused is the one route of one's own to a place that a server's word does not open.
func refused(uri string) []artifact.Route {
	switch s := scheme(uri); {
	case s == "" || s == "file":
		return unsupported(artifact.Direct, "artifacts at a path of this machine, which a tracking server names, while --allow-other shows them to every user")
	case hosted[s]:
		return unsupported(artifact.Direct, "%s is named by a tracking server: this client's own keys open only the hosts, and the users there, that --allow-store names, such as %s", Shown(uri), allowable(uri))
	}
	return unsupported(artifact.Direct, "%s is named by a tracking server, while --allow-other shows the mount to every user: this client's own keys open only what --allow-store names", Shown(uri))
}

// localPath is the path that a file:// URI, or a URI without a scheme, names on
// this machine; false where it names another's.
func localPath(uri string) (string, bool) {
	if scheme(uri) == "" {
		return uri, true
	}
	u, err := url.Parse(uri)
	if err != nil || (u.Host != "" && u.Host != "localhost") {
		return "", false
	}
	return cmp.Or(u.Path, u.Opaque), true
}

// local is a directory of this machine. Where a tracking server names it, it
// may be one of the server's machine instead, which is then served.
func (r *Resolver) local(p place, served bool) ([]artifact.Route, error) {
	path, ok := localPath(p.uri)
	if !ok {
		return unsupported(artifact.Direct, "artifacts at a file:// URI of another host"), nil
	}
	l, err := artifact.NewLocal(path, r.log)
	if err != nil {
		return nil, err
	}
	return []artifact.Route{{Access: artifact.Direct, Says: "a directory of this machine", Store: l, Elsewhere: served}}, nil
}

// served are the routes through the tracking server to what it has a door to.
func (r *Resolver) served(p place, onItsDisk bool) []artifact.Route {
	if r.opt.Client == nil || r.opt.Client.Databricks() || p.door == (artifact.Door{}) {
		return nil // a workspace has no such doors
	}
	s := artifact.NewServed(r.opt.Client, p.door, onItsDisk)
	route := artifact.Route{Access: artifact.Server, Says: "the tracking server reads it with its own credentials and sends it on", Store: s}
	if p.door.RunID == "" || onItsDisk {
		return []artifact.Route{route}
	}
	signed := artifact.NewSigned(s, artifact.NewSignedRun(r.opt.Client, p.door), r.opt.Web)
	return []artifact.Route{{Access: artifact.Presigned, Says: "the object store itself, by URLs that the tracking server signs for the run", Store: signed}, route}
}

// bucket is the route to an object store with credentials of the client's own.
func (r *Resolver) bucket(scheme, uri string) []artifact.Route {
	if r.opt.Buckets[scheme] == nil {
		return nil
	}
	place, key, ok := inBucket(uri)
	if !ok {
		return unsupported(artifact.Direct, "a %s URI without a bucket", scheme)
	}
	b := artifact.NewBlob(Shown(uri), keyOf(scheme, key), func(ctx context.Context, fresh bool) (*artifact.Bucket, error) {
		b, err := r.open(ctx, scheme, place, fresh)
		if err == nil {
			r.likely.add(scheme, place)
		}
		return b, err
	})
	return []artifact.Route{{Access: artifact.Direct, Says: "the object store itself, with credentials of this client", Store: b}}
}

// open opens a bucket, once; and again where its credentials are refused (fresh).
func (r *Resolver) open(ctx context.Context, scheme, place string, fresh bool) (*artifact.Bucket, error) {
	key := scheme + "://" + place
	get := func() (opened, error) {
		return r.buckets.Get(cache.NotAnew(ctx), key, func(ctx context.Context) (opened, error) {
			b, err := r.opt.Buckets[scheme](ctx, place)
			if none := artifact.NoCredentials(""); errors.As(err, &none) {
				return opened{nil, err, time.Now()}, nil
			}
			return opened{b, nil, time.Now()}, err
		})
	}
	o, err := get()
	if fresh && err == nil && time.Since(o.at) > reopenEvery {
		r.buckets.Drop(key)
		o, err = get()
	}
	return o.bucket, errors.Join(err, o.err)
}

// keyOf is the key that the path of a URI stands for: itself, but in a data lake,
// whose paths MLflow decodes (azure_data_lake_artifact_repo._parse_abfss_uri).
func keyOf(scheme, path string) string {
	if scheme != "abfss" {
		return path
	}
	return strings.TrimLeft(rest.Unquote(path), "/")
}

// opened is a bucket, or that there are no credentials for it, which takes
// seconds to find out and is remembered for a while, too.
type opened struct {
	bucket *artifact.Bucket
	err    error
	at     time.Time
}

// reopenEvery is how often a bucket whose credentials are refused is opened
// with those that can be found then.
const reopenEvery = 5 * time.Second

// proxied follows mlflow.store.artifact.mlflow_artifacts_repo.resolve_uri:
// the scheme and the path's prefix are the tracking server's, the host is the
// URI's where it has one.
func (r *Resolver) proxied(uri string) []artifact.Route {
	if r.opt.Client == nil || r.opt.Client.Databricks() {
		return unsupported(artifact.Server, `artifacts with the scheme "mlflow-artifacts" need a tracking server, and the tracking URI is no http:// address`)
	}
	// Cut by hand: an artifact path may hold anything, percent signs included.
	rest := uri[strings.IndexByte(uri, ':')+1:]
	own := r.opt.Client.Base()
	host := own.Host
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
	root := strings.Trim(rest, "/")
	// An URI that repeats the API's own path means the same place.
	if after, ok := strings.CutPrefix(root+"/", strings.Trim(artifact.ProxyPath, "/")+"/"); ok {
		root = after
	}
	return r.proxy(r.opt.Client, url.URL{Scheme: own.Scheme, Host: host, Path: own.Path + artifact.ProxyPath}, root)
}

// proxy is a tracking server's artifact API, and before it, where it is our
// tracking server, the URLs that it may sign.
func (r *Resolver) proxy(c *rest.Client, base url.URL, root string) []artifact.Route {
	p := artifact.NewProxy(c, base.String(), root)
	routes := []artifact.Route{{Access: artifact.Server, Says: "the artifact API of the tracking server", Store: p}}
	if own := c.Base(); base.Scheme == own.Scheme && base.Host == own.Host && base.Path == own.Path+artifact.ProxyPath {
		signed := artifact.NewSigned(p, p, r.opt.Web)
		routes = append([]artifact.Route{{Access: artifact.Presigned, Says: "the object store itself, by URLs that the tracking server signs", Store: signed}}, routes...)
	}
	return routes
}

// web is an http(s) address: a tracking server's artifact API, or a path that
// is asked for there where the host has one, or else a plain file of the web.
func (r *Resolver) web(uri string) ([]artifact.Route, error) {
	const mark = "/mlflow-artifacts/artifacts"
	u, err := url.Parse(uri)
	if err != nil {
		return unsupported(artifact.Server, "artifacts at an http:// URI that can't be parsed"), nil
	}
	u.User = nil
	client := r.opt.Client
	if client == nil || client.Databricks() {
		client = r.opt.Web // no tracking server, so there are no credentials that are for this host
	}
	if i := strings.Index(u.Path, mark); i >= 0 {
		return r.proxy(client, url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path[:i+len(mark)]}, u.Path[i+len(mark):]), nil
	}
	api := url.URL{Scheme: u.Scheme, Host: u.Host, Path: artifact.ProxyPath}
	if own := client.Base(); u.Host == own.Host {
		api.Path = own.Path + artifact.ProxyPath
	}
	routes := r.proxy(client, api, u.Path)
	u.Fragment = ""
	return append(routes, artifact.Route{Access: artifact.Direct, Says: "a plain web address", Store: artifact.NewWeb(client, *u)}), nil
}

// relative gives where inner lies below outer, both storage URIs.
func relative(outer, inner string) (string, bool) {
	rest, ok := strings.CutPrefix(strings.TrimRight(inner, "/"), strings.TrimRight(outer, "/"))
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	rest = strings.TrimPrefix(rest, "/")
	return rest, !strings.HasPrefix(rest, "/") // what follows a // is another directory
}

// split cuts a storage URI with a scheme into its directory and its last name;
// no name is the root of a store. The query of a web address stays with the
// directory.
func split(uri string) (dir, name string) {
	query := ""
	if s := scheme(uri); s == "http" || s == "https" {
		if i := strings.IndexByte(uri, '?'); i >= 0 {
			uri, query = uri[:i], uri[i:]
		}
	}
	uri = strings.TrimRight(uri, "/")
	start := strings.IndexByte(uri, ':') + 1
	if strings.HasPrefix(uri[start:], "//") {
		start += 2
		slash := strings.IndexByte(uri[start:], '/')
		if slash < 0 {
			return uri, ""
		}
		start += slash
	}
	i := strings.LastIndexByte(uri[start:], '/')
	if i < 0 {
		return uri + query, ""
	}
	return uri[:start+i+1] + query, uri[start+i+1:]
}
