package main

import (
	"log/slog"
	"os"
	"testing"
	"time"
)

// TestStorageURINeedsNoTrackingStore fails when a bucket or a directory of this machine
// can't be read because a tracking server is named that can't be asked, for a file of
// credentials that is damaged; or when what only the server knows is looked for without it.
func TestStorageURINeedsNoTrackingStore(t *testing.T) {
	t.Setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", "/nowhere/cert.pem")
	for uri, needed := range map[string]bool{
		"s3://bucket/dir": false, "/dir": false, "file:///dir": false, "http://host/dir": false,
		"runs:/0123456789abcdef0123456789abcdef/x": true, "MODELS:/m/1": true, "mlflow-artifacts:/x": true,
	} {
		c := &ClientConfig{Server: serverConfig{TrackingURI: "http://127.0.0.1:1"}, Env: os.Getenv}
		s, err := c.open(openOptions{ttl: time.Minute, needed: isNamed(uri)}, slog.New(slog.DiscardHandler))
		if err == nil {
			s.close()
		}
		if (err != nil) != needed {
			t.Errorf("%s: %v", uri, err)
		}
	}
}
