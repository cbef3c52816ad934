package fs

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

// uris is uri/: directories in object stores and on hosts, at the path that their URI is.
func (t *tree) uris(list []string) (Dir, error) {
	var root fixed
	for _, uri := range list {
		names, err := uriPath(uri)
		if err != nil {
			return nil, err
		}
		origin := func(ctx context.Context) (resolve.Dir, error) { return t.r.At(ctx, uri) }
		root = root.graft(names, &Node{Dir: t.artifacts(uri, origin), TTL: t.r.TTL(false)})
	}
	return root, nil
}

// graft puts n at a path below d. Of two where one is inside the other, the
// outer one shows both.
func (d fixed) graft(names []string, n *Node) fixed {
	for i, e := range d {
		if e.Name != names[0] {
			continue
		}
		switch inner, ok := e.Dir.(fixed); {
		case len(names) == 1:
			d[i].Node = n
		case ok:
			d[i].Node = &Node{Dir: inner.graft(names[1:], n), TTL: e.TTL}
		}
		return d
	}
	if len(names) == 1 {
		return append(d, Entry{names[0], n})
	}
	return append(d, Entry{names[0], &Node{Dir: fixed{}.graft(names[1:], n), TTL: forever}})
}

// uriPath is where a directory in an object store, or on a host, stands below uri/:
// s3/<bucket>/<key…>, wasbs/<account>/<container>/<name…>, r2/<host>/<bucket>/<key…>,
// sftp/<user@host>/<path…>.
func uriPath(uri string) ([]string, error) {
	bad := func(why string) ([]string, error) {
		return nil, fmt.Errorf("--mount-uris: %q %s: write it like s3://bucket, gs://bucket/dir, wasbs://container@account.blob.core.windows.net or sftp://user@host/dir", resolve.Shown(uri), why)
	}
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return bad("is no URI of an object store or a host")
	}
	host, key, _ := strings.Cut(rest, "/")
	names := []string{scheme, host}
	switch scheme {
	case "s3", "gs":
	case "wasbs", "abfss", "r2", "b2":
		container, account, ok := strings.Cut(host, "@")
		if !ok {
			return bad("names no account or host")
		}
		for _, usual := range []string{".blob.core.windows.net", ".dfs.core.windows.net"} {
			account = strings.TrimSuffix(account, usual)
		}
		names = []string{scheme, account, container}
	case "sftp", "hdfs", "webhdfs", "swebhdfs":
		a, err := artifact.ParseAuthority(host)
		if err != nil || a.HasPassword || host == "" {
			return bad("names no host, or a password, which belongs in no setting")
		}
		names[1] = a.String()
	default:
		return bad("has a scheme that is no object store's or host's")
	}
	if key = strings.Trim(key, "/"); key != "" {
		names = append(names, strings.Split(key, "/")...)
	}
	for _, n := range names {
		if why := artifact.BadName(n); why != "" || path.Clean(n) != n {
			return bad("has a part that is no directory's name")
		}
	}
	return names, nil
}
