package mlflow

import (
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// DefaultTrackingURI is what the MLflow client takes where nothing is set:
// ./mlruns where it holds experiments, else sqlite:///mlflow.db
// (mlflow.tracking._tracking_service.utils).
func DefaultTrackingURI() string {
	entries, err := os.ReadDir("mlruns")
	if err == nil {
		for _, e := range entries {
			if !isDigits(e.Name()) {
				continue
			}
			if _, err := os.Lstat(filepath.Join("mlruns", e.Name(), "meta.yaml")); err == nil {
				return "mlruns"
			}
		}
	}
	return "sqlite:///mlflow.db"
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// Redact is a URI as it may be shown: without user, password and query.
func Redact(uri string) string {
	i := strings.Index(uri, "://")
	if i < 0 {
		return uri
	}
	scheme, rest := uri[:i+3], uri[i+3:]
	if j := strings.IndexAny(rest, "?#"); j >= 0 {
		rest = rest[:j]
	}
	host, path := rest, ""
	if j := strings.IndexByte(rest, '/'); j >= 0 {
		host, path = rest[:j], rest[j:]
	}
	if j := strings.LastIndexByte(host, '@'); j >= 0 {
		host = host[j+1:]
	} else if j := strings.LastIndexByte(path, '@'); j >= 0 && scheme != "file://" && scheme != "sqlite://" {
		return scheme + "…" // a password with a / in it: nothing here is safe to show
	}
	return scheme + host + path
}

// Open opens the store at a tracking URI: http(s)://…, sqlite:///path,
// file://… or a path. The client is nil but for http(s).
func Open(uri string, env Env, log *slog.Logger) (Store, *Client, error) {
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok || strings.ContainsAny(scheme, "/.") {
		scheme, rest = "", uri
	}
	// SQLAlchemy allows a driver: sqlite+pysqlite.
	dialect, _, _ := strings.Cut(strings.ToLower(scheme), "+")
	switch dialect {
	case "http", "https":
		c, err := NewClient(uri, env, log)
		if err != nil {
			return nil, nil, err
		}
		return NewREST(c), c, nil
	case "sqlite":
		path, _, _ := strings.Cut(rest, "?")
		if !strings.HasPrefix(path, "///") || path == "///" {
			return nil, nil, fmt.Errorf("the tracking URI %s names no file: write sqlite:///relative/path.db or sqlite:////absolute/path.db", Redact(uri))
		}
		s, err := openSQLite(path[len("///"):], sqlWorkspace(env))
		return s, nil, err
	case "", "file":
		path := uri
		if dialect == "file" {
			u, err := url.Parse(uri)
			if err != nil || (u.Host != "" && u.Host != "localhost") || u.Path == "" {
				return nil, nil, fmt.Errorf("the tracking URI %s names no directory here: write file:///absolute/path", Redact(uri))
			}
			path = u.Path
		}
		s, err := openFileStore(path, log)
		return s, nil, err
	case "postgresql", "postgres", "mysql", "mssql":
		return nil, nil, fmt.Errorf("the tracking URI is a %s database, which mlflowfs does not read itself: start `mlflow server --backend-store-uri …` on it and give that server's http:// address", dialect)
	case "databricks", "databricks-uc", "uc":
		return nil, nil, fmt.Errorf("the tracking URI %s is Databricks, which mlflowfs does not speak with", Redact(uri))
	}
	return nil, nil, fmt.Errorf("the tracking URI %s can't be understood: it must be http(s)://host:port, sqlite:///file.db, or a FileStore directory", Redact(uri))
}
