package test

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/mlflowfs/mlflowfs/test/draw"
)

// difference is a row of the table of docs/uris.md: what mlflowfs takes in another
// way than MLflow's client, on purpose.
type difference struct {
	row    string // the row's first cell
	met    func(q *question) bool
	always bool // each run of the test meets it
}

var differences = []difference{
	{"`#` or `?` in a path", func(q *question) bool { return strings.ContainsAny(q.uri, "#?") }, true},
	{"`%` and two digits in a path", func(q *question) bool { return encoded.MatchString(q.uri) }, true},
	{"`runs:/<run_id>`, `runs:/<run_id>/`", func(q *question) bool {
		return strings.HasPrefix(q.uri, "runs:/") && strings.Count(strings.Trim(q.uri, "/"), "/") == 1
	}, true},
	{"`runs://<host>/…`", func(q *question) bool { return strings.HasPrefix(q.uri, "runs://host") }, true},
	{"`file://<host>/…`", func(q *question) bool { return strings.HasPrefix(strings.ToLower(q.uri), "file://elsewhere/") }, true},
	{"`.` and `..` in a path", func(q *question) bool { return strings.Contains(q.uri, "/.") }, false},
	{"a path that is not there, or a file, with a last slash", func(q *question) bool {
		return strings.HasSuffix(q.uri, "/") && q.ours.notFound(q.what) && (q.theirs.brings(q.what) == 0 || strings.Contains(q.ours.Download.Error, "is a file"))
	}, true},
	{"a path that is not there", func(q *question) bool { return q.theirs.brings(q.what) == 0 && q.ours.notFound(q.what) }, true},
	{"a path below `models:/m-<id>`", func(q *question) bool {
		return strings.HasPrefix(q.uri, "models:/m-") && q.theirs.fails(q.what)
	}, false},
	{"`models:/<name>/<version>` of a name with an `@`", func(q *question) bool {
		return strings.HasPrefix(q.uri, "models:/with@sign and space/") && q.theirs.fails(q.what)
	}, true},
	{"what a run and its logged model of one name have both", func(q *question) bool {
		return q.s.seed != nil && hasBoth.MatchString(strings.Replace(q.uri, q.s.seed.Second, "second", 1))
	}, false},
	{"`models:/<name>@latest`, with MLflow 2", func(q *question) bool {
		return (!q.s.v3 || q.client == "mlflow2") && strings.Contains(strings.ToLower(q.uri), "@latest") && q.theirs.fails(q.what)
	}, true},
	{"objects that can't all be files", func(q *question) bool { return q.s.Keys != nil && q.onlyOddKeysDiffer() }, false},
	{"a name in another case, of a MySQL database", func(q *question) bool {
		return strings.HasPrefix(q.s.Store, "mysql") && q.what == "mount" && strings.Contains(q.uri, strings.ToUpper(q.s.seed.Wide))
	}, true},
	// MLflow's client is asked about the store as it was.
	{"a FileStore that was moved to another directory", func(*question) bool { return false }, false},
	{"`MLFLOW_TRACKING_AUTH=kubernetes-namespaced`, with a server without workspaces", func(q *question) bool {
		return q.s.Env["MLFLOW_TRACKING_AUTH"] == "kubernetes-namespaced" && (q.what == "asked" || strings.Contains(q.ours.Download.Error+q.ours.List.Error, "FEATURE_DISABLED"))
	}, false},
	{"a damaged `~/.mlflow/credentials`", func(q *question) bool {
		if q.s.Files[".mlflow/credentials"] == "" {
			return false
		}
		said := q.theirs.Download.Error
		if q.what == "ls" {
			said = q.theirs.List.Error
		}
		// MLflow 2 passes over it as it looks for its registries, and has none then.
		return q.what == "asked" && (q.askedTheirs == nil || onlyServers(q.askedTheirs, q.askedOurs)) && notIn(q.askedOurs, q.askedTheirs) == nil || said != "" && !strings.HasPrefix(said, "MlflowException") || strings.HasSuffix(said, "schemes are supported: [].")
	}, false},
	{"`mlflow-artifacts:/`, or a name right below it, of a server below a path", func(q *question) bool {
		isRoot := func(uri string) bool {
			return strings.HasPrefix(uri, "mlflow-artifacts:/") && strings.Count(uri, "/") == 1
		}
		if !strings.Contains(q.s.Env["MLFLOW_TRACKING_URI"], "/moved") {
			return false
		}
		return q.what != "asked" && isRoot(q.uri) && strings.Contains(q.ours.Download.Error, "was redirected to") || q.what == "asked" && slices.ContainsFunc(q.s.URIs, isRoot) &&
			onlyServers(q.askedOurs, q.askedTheirs) && notIn(q.askedTheirs, q.askedOurs) == nil
	}, false},
	{"`MLFLOW_TRACKING_AWS_SIGV4` with no region but `AWS_REGION`", func(q *question) bool {
		return q.s.Env["MLFLOW_TRACKING_AWS_SIGV4"] != "" && q.s.Env["AWS_REGION"] != "" && q.s.Env["AWS_DEFAULT_REGION"] == "" && (q.theirs.fails(q.what) || q.what == "asked")
	}, false},
	{"letters that Latin-1 has not, in a netrc file", func(q *question) bool {
		if q.what == "asked" {
			return notIn(q.askedOurs, q.askedTheirs) == nil && strings.ContainsFunc(q.s.Files[".netrc"]+q.s.Files["_netrc"]+q.s.Files["named"], func(r rune) bool { return r > 0xff })
		}
		return strings.Contains(q.theirs.Download.Error+q.theirs.List.Error, "'latin-1' codec can't encode")
	}, false},
	{"a directory that is no more than an object of its name", func(q *question) bool {
		return q.s.Keys != nil && q.what == "download" && q.theirs.fails(q.what) && len(q.ours.Download.Tree) == 1 && q.ours.Download.Tree[q.ours.Download.Returned] == ""
	}, false},
	{"a redirect to another host that the netrc file names", func(q *question) bool {
		return q.what == "asked" && strings.Contains(q.s.Env["MLFLOW_TRACKING_URI"], "/moved") && (q.s.Files[".netrc"]+q.s.Files["_netrc"]+q.s.Files["named"] != "")
	}, false},
	{"a bundle of certificates that is not there", func(q *question) bool {
		isNoConnect := func(asked string) bool { return !strings.Contains(asked, " CONNECT ") }
		isMissing := func(value string) bool { return strings.HasSuffix(value, "none.pem") }
		return q.what == "asked" && slices.ContainsFunc(slices.Collect(maps.Values(q.s.Env)), isMissing) &&
			!slices.ContainsFunc(slices.Concat(notIn(q.askedOurs, q.askedTheirs), notIn(q.askedTheirs, q.askedOurs)), isNoConnect)
	}, false},
	{"a netrc file that names the host of an emulator of GCS or Azure", func(q *question) bool {
		return (q.s.Store == "gs" || q.s.Store == "wasbs") && q.s.Files[".netrc"]+q.s.Files["_netrc"]+q.s.Files["named"] != "" && (q.what == "asked" || q.theirs.fails(q.what))
	}, false},
	{"an object of GCS with `Content-Encoding: gzip`", func(q *question) bool {
		if q.s.Store != "gs" || q.what == "asked" || q.what == "ls" {
			return false
		}
		packed := func(name, _ string) bool { return path.Base(name) == draw.Packed }
		a, b := maps.Clone(q.theirs.Download.Tree), maps.Clone(q.ours.Download.Tree)
		maps.DeleteFunc(a, packed)
		maps.DeleteFunc(b, packed)
		return len(a) < len(q.theirs.Download.Tree) && (q.what == "mount" || maps.Equal(a, b) || strings.Contains(q.ours.Download.Error, "packed"))
	}, false},
	{"a bucket that this client can't read", func(q *question) bool {
		return q.s.root != "" && q.theirs.fails(q.what) && !q.ours.fails(q.what) && !strings.Contains(q.uri, "://")
	}, false},
	{"an address of this machine, where a proxy is named and `no_proxy` is not", func(q *question) bool { return q.s.unproxy }, false},
	{"`registered_model_meta` by an alias of a local store", func(q *question) bool {
		if strings.HasPrefix(q.s.Store, "server") || q.s.root != "" || !strings.Contains(q.uri, "@") {
			return false
		}
		if q.what == "mount" {
			return true
		}
		if q.theirs.fails(q.what) || q.ours.fails(q.what) {
			return false
		}
		a, b := maps.Clone(q.theirs.Download.Tree), maps.Clone(q.ours.Download.Tree)
		delete(a, "registered_model_meta")
		delete(b, "registered_model_meta")
		return maps.Equal(a, b)
	}, false},
	{"where MLflow 2's client and MLflow 3's differ", func(q *question) bool {
		if q.client == "mlflow3" && !q.s.v3 && strings.Contains(q.theirs.List.Error, "logged-models/search failed with error code 404") && !q.ours.fails("ls") {
			return true
		}
		if q.what == "asked" && q.client == "mlflow2" && slices.Equal(q.askedOurs, q.askedOther) {
			return true
		}
		if q.other == nil || q.what == "asked" || q.client == "mlflow3" && q.s.v3 {
			return false
		}
		they, we := *q, *q
		they.ours, we.theirs = *q.other, *q.other
		if q.what == "mount" {
			they.what = "download"
			return they.differs(nil) != ""
		}
		return we.differs(nil) == ""
	}, true},
}

// notIn is what of all is not in some.
func notIn(some, all []string) (rest []string) {
	for _, s := range all {
		if !slices.Contains(some, s) {
			rest = append(rest, s)
		}
	}
	return rest
}

// onlyServers tells whether what of all is not in some are tracking servers.
func onlyServers(some, all []string) bool {
	return !slices.ContainsFunc(notIn(some, all), func(asked string) bool { return !strings.HasPrefix(asked, "server") })
}

var hasBoth = regexp.MustCompile(`^(?i:runs):/+second/+model([^2]|$)`)

var encoded = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// onlyOddKeysDiffer tells whether a listing lacks nothing but what can't be a file beside
// the rest, and a download fails for it, or the client's does.
func (q *question) onlyOddKeysDiffer() bool {
	a, b := q.theirs, q.ours
	switch {
	case b.notFound(q.what) && slices.ContainsFunc(strings.Split(q.uri, "/"), func(part string) bool { return len(part) > 255 }):
		return true
	case q.what == "download" && !a.fails(q.what) && len(b.Download.Tree) == 1 && b.Download.Tree[b.Download.Returned] == "": // a directory without files
		return oddKeys(q.s.Keys)
	case q.what == "download":
		return strings.Contains(b.Download.Error, "is left out:") || a.fails(q.what) && oddKeys(q.s.Keys)
	case q.what == "mount":
		return oddKeys(q.s.Keys)
	case q.what != "ls" || a.fails(q.what) || b.fails(q.what):
		return false
	}
	dirs := map[any]bool{}
	for _, f := range b.List.List {
		dirs[f[0]] = f[1].(bool)
	}
	for _, f := range a.List.List {
		name := f[0].(string)
		last := path.Base(name)
		isThere := slices.ContainsFunc(b.List.List, func(g [3]any) bool { return g == f })
		isSelf := last == path.Base(strings.TrimSuffix(q.uri, "/")) // of a part that is empty, or a dot
		if !isThere && !dirs[name] && !isSelf && last != "." && last != ".." && len(last) <= 255 {
			return false
		}
	}
	return !slices.ContainsFunc(b.List.List, func(g [3]any) bool { return !slices.Contains(a.List.List, g) })
}

// oddKeys tells whether some of the keys can't be files beside the others.
func oddKeys(keys map[string]string) bool {
	for k, content := range keys {
		if content != "" && strings.HasSuffix(k, "/") {
			return true
		}
		for at, rest, ok := "", k, true; ok; {
			var part string
			part, rest, ok = strings.Cut(rest, "/")
			if at += part; part == "." || part == ".." || len(part) > 255 {
				return true
			}
			if _, isFile := keys[at]; isFile && ok {
				return true
			}
			at += "/"
		}
	}
	return false
}

// fails tells whether there is no answer but an error.
func (a uriAnswer) fails(what string) bool {
	return what == "ls" && a.List.Error != "" || what == "download" && a.Download.Error != ""
}

// brings is how much an answer has; -1 for an error.
func (a uriAnswer) brings(what string) int {
	switch {
	case a.fails(what):
		return -1
	case what == "ls":
		return len(a.List.List)
	}
	return len(a.Download.Tree)
}

// notFound tells whether one of ours is that nothing is there.
func (a uriAnswer) notFound(what string) bool {
	said := a.Download.Error
	if what == "ls" {
		said = a.List.Error
	}
	return strings.HasPrefix(said, "exit code 3:")
}
