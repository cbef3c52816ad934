package main

import (
	"context"
	"crypto/tls"
	"net/http"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/mlflow"
)

// buckets are the object stores that are linked in, by the schemes of their
// URIs. Each takes its credentials from its own environment and profiles, as
// its SDK and MLflow do.
func buckets(set mlflow.Settings, env mlflow.Env) map[string]artifact.OpenBucket {
	s3 := s3Driver{set, env}
	azure := azureDriver{set, env}
	return map[string]artifact.OpenBucket{
		"s3":    s3.open,
		"r2":    s3.openHosted(".r2.cloudflarestorage.com", false),
		"b2":    s3.openHosted(".backblazeb2.com", true),
		"gs":    gsDriver{set, env}.open,
		"wasbs": azure.open,
		"abfss": azure.open,
	}
}

// storeTransport is a transport for an object store.
func storeTransport(set mlflow.Settings) *http.Transport {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	set.Tune(t)
	return t
}

// credentialsPatience bounds the search for credentials: the last place where
// the SDKs look is a metadata service that only cloud machines have.
const credentialsPatience = 10 * time.Second

func credentialsWatch(ctx context.Context, set mlflow.Settings, what string) *mlflow.Watch {
	set.Silence = min(set.Silence, credentialsPatience)
	return set.Watch(ctx, what)
}
