package resolve

import (
	"context"
	"strings"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

// onHost is the URI of a host's file system, in two: what stands for the host, and the
// path there. Nothing of the path is decoded, as by MLflow's client.
func onHost(uri string) (authority, path string) {
	_, rest, _ := strings.Cut(uri, ":")
	rest, named := strings.CutPrefix(rest, "//")
	if !named {
		return "", rest // hdfs:/dir
	}
	authority, path, _ = strings.Cut(rest, "/")
	return authority, "/" + path
}

// allowable is a host's URI as --allow-store may name it: with the user, and without a
// password.
func allowable(uri string) string {
	p, ok := cutPlace(uri)
	if !ok || strings.ContainsRune(p.key, '@') { // perhaps a password with a / in it
		return "sftp://user@host/dir"
	}
	return p.scheme + "://" + p.host
}

// host is the route to the file system of a host with the user's own rights there.
func (r *Resolver) host(scheme string, p place) []artifact.Route {
	authority, path := onHost(p.uri)
	h, err := r.hosts.Get(cache.NotAnew(context.Background()), scheme+"://"+authority, func(context.Context) (artifact.FileSystem, error) {
		return r.opt.Hosts[scheme](authority)
	})
	if err != nil {
		return unsupported(artifact.Direct, "%s can't be read: %v", Shown(p.uri), err)
	}
	a, _ := artifact.ParseAuthority(authority)
	opt := artifact.RemoteOptions{URI: Shown(p.uri), ID: scheme + "://" + a.String() + path, Root: path, Log: r.log}
	if key, named := r.opt.Allowed.within(p.uri); named && key != "" && (!p.typed || !r.opt.Allowed.Own) {
		opt.Within = "/" + key
		opt.ID += "\x00within " + opt.Within // links show other files there
	}
	return []artifact.Route{{Access: artifact.Direct, Says: "the host itself, with this user's own rights there", Store: h.Dir(opt)}}
}
