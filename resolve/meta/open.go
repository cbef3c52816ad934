package meta

import (
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
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

// DefaultRegistryURI is where the model registry is of a tracking URI, where none is set:
// at the tracking URI, but for Databricks, whose registry is its Unity Catalog
// (mlflow.tracking._model_registry.utils).
func DefaultRegistryURI(tracking string) string {
	if after, ok := strings.CutPrefix(tracking, "databricks"); ok && rest.IsDatabricks(tracking) && !strings.HasPrefix(after, "-uc") {
		return "databricks-uc" + after
	}
	return tracking
}

// OpenRegistry opens the registry at a URI: what Open takes, an open source Unity Catalog
// at uc:http(s)://…, or Databricks' at databricks-uc.
func OpenRegistry(uri string, env rest.Env, log *slog.Logger) (s Store, c *rest.Client, err error) {
	scheme, _, _ := strings.Cut(uri, ":")
	switch scheme {
	case "uc":
		if c, err = rest.NewUnityClient(uri, env, log); err == nil {
			s = NewUnity(c)
		}
	case "databricks", "databricks-uc":
		if c, err = rest.NewDatabricksClient(uri, env, log); err == nil {
			s = NewDatabricksRegistry(c, scheme == "databricks-uc")
		}
	default:
		return Open(uri, env, log)
	}
	return s, c, err
}

// Open opens the store at a tracking URI: http(s)://…, a database's (sqlite:///path,
// postgresql://…, mysql://…, mssql://…), file://… or a path. The client is nil but for
// http(s).
func Open(uri string, env rest.Env, log *slog.Logger) (Store, *rest.Client, error) {
	scheme, behind, ok := strings.Cut(uri, ":")
	if !ok || strings.ContainsAny(scheme, "/.") {
		scheme, behind = "", uri
	}
	if rest.IsDatabricks(uri) { // which MLflow takes for no directory
		scheme, _, _ = strings.Cut(uri, ":")
	}
	// SQLAlchemy allows a driver: sqlite+pysqlite.
	dialect, _, _ := strings.Cut(strings.ToLower(scheme), "+")
	switch dialect {
	case "http", "https":
		c, err := rest.NewClient(uri, env, log)
		if err != nil {
			return nil, nil, err
		}
		return NewREST(c), c, nil
	case "sqlite":
		path, _, _ := strings.Cut(behind, "?")
		if !strings.HasPrefix(path, "///") || path == "///" {
			return nil, nil, fmt.Errorf("the tracking URI %s names no file: write sqlite:///relative/path.db or sqlite:////absolute/path.db", rest.Redact(uri))
		}
		d, err := openSQLite(path[len("///"):])
		if err != nil {
			return nil, nil, err
		}
		s, err := newSQL(d, env)
		return s, nil, err
	case "postgresql", "postgres", "mysql", "mssql":
		d, err := openDatabase(uri, env, log)
		if err != nil {
			return nil, nil, err
		}
		s, err := newSQL(d, env)
		return s, nil, err
	case "", "file":
		path := uri
		if dialect == "file" {
			u, err := url.Parse(uri)
			if err != nil || (u.Host != "" && u.Host != "localhost") || u.Path == "" {
				return nil, nil, fmt.Errorf("the tracking URI %s names no directory here: write file:///absolute/path", rest.Redact(uri))
			}
			path = u.Path
		}
		s, err := openFileStore(path, log)
		return s, nil, err
	case "databricks":
		c, err := rest.NewDatabricksClient(uri, env, log)
		if err != nil {
			return nil, nil, err
		}
		return &databricksStore{restStore{c: c}}, c, nil
	case "uc", "databricks-uc":
		return nil, nil, fmt.Errorf("the tracking URI %s is a Unity Catalog, which is a model registry alone: give it as the registry URI (MLFLOW_REGISTRY_URI), and the tracking server's address, or databricks, as the tracking URI", rest.Redact(uri))
	}
	return nil, nil, fmt.Errorf("the tracking URI %s can't be understood: it must be http(s)://host:port, sqlite:///file.db, postgresql://, mysql:// or mssql:// with user:password@host/database, or a FileStore directory", rest.Redact(uri))
}
