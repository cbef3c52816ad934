package fs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"path"
	"strings"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve"
)

// What a mount has for its own user's programs alone, below [AboutDir]: the kernel keeps
// others out by the directory's mode.
//
//	own/scope    which mounts show the same
//	own/uri/…    what an artifact URI leads to, be it shown elsewhere or not
//	own/anew/…   a link to where that is, which has the mount forget what it remembers
//	own/list/…   what MLflow's list_artifacts gives for it now
const ownDir = "own"

// ScopeFile tells, in a mount, the scope of its tree ([Options]).
const ScopeFile = AboutDir + "/" + ownDir + "/scope"

const (
	urisDir   = "uri"
	anewDir   = "anew"
	listDir   = "list"
	partBegin = "+" // before a part of a URI that is not the last
	lastBegin = "=" // before the last
	partSize  = 200 // bytes
)

// otherwise is how a link of AnewPath begins where MLflow's own download would not give
// what lies there: its server can't be asked; a path of a machine names it, which MLflow
// gives; or a run and its logged model both have a part of it, and MLflow gives the run's.
const otherwise = "./"

// Otherwise tells of the target of a link of AnewPath whether MLflow's own download would
// give something else.
func Otherwise(target string) bool { return strings.HasPrefix(target, otherwise) }

// AnewPath is a link in a mount. Whoever reads it has the mount find out, from the server
// and the stores, what an artifact URI of whichever form leads to, and what is below that;
// it leads to where the mount shows it.
func AnewPath(uri string) string {
	return AboutDir + "/" + ownDir + "/" + anewDir + "/" + uriParts(uri)
}

// ListPath is a file in a mount: what mlflow.artifacts.list_artifacts gives for an artifact
// URI, as an array in JSON of [resolve.FileInfo]. Each look-up has the mount ask for it anew;
// it fails where the server can't be asked, and where MLflow may list more.
func ListPath(uri string) string {
	return AboutDir + "/" + ownDir + "/" + listDir + "/" + uriParts(uri)
}

// uriParts is a URI as names of directories. MLflow takes a path for a URI here and there,
// and unescapes what begins with a percent sign.
func uriParts(uri string) string {
	var out strings.Builder
	rest := strings.NewReplacer("%", "=", "+", "=20").Replace(url.QueryEscape(uri))
	for ; len(rest) > partSize; rest = rest[partSize:] {
		out.WriteString(partBegin + rest[:partSize] + "/")
	}
	return out.String() + lastBegin + rest
}

// ofParts is the URI of which uriParts are, put together.
func ofParts(spelt string) (string, error) {
	return url.PathUnescape(strings.ReplaceAll(spelt, "=", "%"))
}

func (t *tree) own(scope string) *Node {
	dir := func(d Dir) *Node { return &Node{Dir: d, TTL: forever} }
	n := dir(fixed{
		{"scope", sized(scope)},
		{urisDir, dir(uriDir{find: t.atURI})},
		{anewDir, dir(uriDir{find: t.anew, up: "../../.."})},
		{listDir, dir(uriDir{find: t.list})},
	})
	n.Private = true
	return n
}

// uriDir is a directory whose entries are URIs, in parts, and are not listed.
type uriDir struct {
	find   func(ctx context.Context, uri, up string) (*Node, error)
	before string // of the URI
	up     string // leads from it to the root
}

var _ Dir = uriDir{}

func (d uriDir) List(context.Context) (Listing, error) { return &entries{}, nil }

func (d uriDir) Lookup(ctx context.Context, name string) (*Node, error) {
	if part, ok := strings.CutPrefix(name, partBegin); ok {
		return &Node{Dir: uriDir{d.find, d.before + part, d.up + "/.."}}, nil
	}
	part, ok := strings.CutPrefix(name, lastBegin)
	if !ok {
		return nil, notExist(name)
	}
	uri, err := ofParts(d.before + part)
	if err == nil {
		_, _, err = resolve.ParseURI(uri)
	}
	if err != nil {
		return nil, notExist(name)
	}
	return d.find(ctx, uri, d.up)
}

// atURI is a directory that holds what a URI leads to, by its own name.
func (t *tree) atURI(ctx context.Context, uri, _ string) (*Node, error) {
	found, err := t.r.Resolve(ctx, uri)
	if err != nil {
		return nil, err
	}
	var n *Node
	if found.Dir != nil {
		found.Dir.Final = false // nobody says so
		n = &Node{Dir: artifactsDir{t: t, o: found.Dir, at: uri}, TTL: t.r.TTL(false)}
	} else {
		found.Final = false
		n = artifactsDir{t: t, o: &resolve.Dir{Mtime: found.Mtime}, at: path.Dir(uri)}.node(found.Item)
	}
	return &Node{Dir: fixed{{ownName(uri), n}}, TTL: t.r.TTL(false)}, nil
}

// ownName is the last name in a storage URI.
func ownName(uri string) string {
	p := strings.TrimRight(uri, "/")
	if _, behind, ok := strings.Cut(p, ":"); ok {
		p = cmp.Or(strings.Trim(behind, "/"), "artifacts") // of a whole disk, say
	}
	if name := Escape(path.Base(p)); len(name) <= MaxName {
		return name
	}
	return "artifacts"
}

// anew is the link of AnewPath.
func (t *tree) anew(ctx context.Context, uri, up string) (*Node, error) {
	u, found, stale, err := t.r.Anew(ctx, uri)
	if err != nil {
		return nil, err
	}
	if stale || found.ByPath() || len(found.Parted()) > 1 {
		up = otherwise + up
	}
	if found.Dir != nil { // its listing is the next that is asked for
		go Contain(t.log, "a listing", func() { t.r.List(context.WithoutCancel(ctx), found.Dir) })
	}
	to := treePath(u)
	if to == "" {
		to = path.Join(AboutDir, ownDir, urisDir, uriParts(uri), ownName(uri))
	}
	return &Node{Link: up + "/" + to, Anew: true}, nil
}

// list is the file of ListPath.
func (t *tree) list(ctx context.Context, uri, _ string) (*Node, error) {
	ctx, mark := cache.WithStaleMark(cache.Anew(ctx))
	_, found, stale, err := t.r.Anew(ctx, uri)
	if err != nil {
		return nil, err
	}
	infos, left, err := t.r.FileInfos(ctx, found)
	switch {
	case err != nil:
	case stale || mark.Load():
		err = errors.New("its server can't be asked")
	case left:
		err = errors.New("the store holds what can't be shown")
	}
	if err != nil {
		return nil, err
	}
	said, err := json.Marshal(infos)
	return sized(string(said) + "\n"), err
}

// treePath is the path of what a URI of MLflow's names; empty for another.
func treePath(u resolve.URI) string {
	switch {
	case u.RunID != "":
		return path.Join("runs", u.RunID, u.Path)
	case u.ModelID != "":
		return path.Join("models", u.ModelID, u.Path)
	case u.Prompt:
		return path.Join("prompts", Escape(u.Name), u.Version, u.Path)
	case u.Name != "":
		return path.Join("models", Escape(u.Name), u.Version, u.Path)
	}
	return ""
}
