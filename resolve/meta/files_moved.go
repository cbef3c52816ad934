package meta

import (
	"errors"
	"net/url"
	"os"
	"path"
	"strings"
	"syscall"
)

// moved gives the URI of artifacts that lie in the store, where the URI that a
// meta.yaml has names a directory that is not there: MLflow writes the
// directory in which the store was when the run began, and the store was moved
// since, or the experiment was deleted (into .trash). It tells whether the
// directory is anywhere.
func (v fileView) moved(uri string) (now string, found bool) {
	p, ok := pathOf(uri)
	if !ok {
		return uri, true
	}
	if _, err := os.Stat(p); err == nil {
		return uri, true
	}
	for _, dir := range placesIn(p) {
		if v.isDir(dir) {
			return path.Join(v.dir, dir), true
		}
	}
	return uri, false
}

// movedExperiment is moved for the directory of an experiment, dir.
func (v fileView) movedExperiment(dir, uri string) string {
	p, ok := pathOf(uri)
	if !ok || path.Base(p) != dir {
		return uri
	}
	if _, err := os.Stat(p); err == nil {
		return uri
	}
	return path.Join(v.dir, dir)
}

// pathOf is the path that a local URI names, with slashes, be it one of
// Windows's. It is a path of this machine only if something is there.
func pathOf(uri string) (string, bool) {
	if len(uri) > 2 && uri[1] == ':' && (uri[2] == '\\' || uri[2] == '/') {
		return strings.ReplaceAll(uri, `\`, "/"), true // C:\…
	}
	if !strings.Contains(uri, ":") {
		return uri, uri != ""
	}
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "file" {
		return "", false
	}
	if u.Path == "" {
		return u.Opaque, u.Opaque != ""
	}
	return u.Path, true
}

// placesIn are the places in a FileStore that a path may have been in another
// directory: <experiment>/<run>/artifacts/… and
// <experiment>/models/<m-id>/artifacts/…, or the same in .trash.
func placesIn(p string) (out []string) {
	parts := strings.Split(strings.Trim(p, "/"), "/")
	for i, part := range parts {
		if part != artifactsDir || i < 2 {
			continue
		}
		from := i - 2
		if parts[from] == modelsDir && from > 0 {
			from--
		}
		place := path.Join(parts[from:]...)
		out = append(out, place, path.Join(trashDir, place))
	}
	return out
}

// notDir tells whether a part of a path is a file.
func notDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
