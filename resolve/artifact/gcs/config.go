package gcs

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Config is where Google's client looks (google.auth._default).
type Config struct {
	Emulator    string // an address, which needs no credentials; empty: Google's
	Credentials string // a file of them
	Named       bool   // the user named the file, so that it must be good
}

// FromEnv reads the configuration from the environment, and takes gcloud's own file
// below home where no other is named.
func FromEnv(env rest.Env, home string) Config {
	c := Config{Emulator: env("STORAGE_EMULATOR_HOST"), Credentials: env("GOOGLE_APPLICATION_CREDENTIALS")}
	if c.Named = c.Credentials != ""; !c.Named {
		dir := cmp.Or(env("CLOUDSDK_CONFIG"), filepath.Join(home, ".config", "gcloud"))
		c.Credentials = filepath.Join(dir, "application_default_credentials.json")
	}
	return c
}

const scope = "https://www.googleapis.com/auth/devstorage.read_only"

// tokens gives tokens for requests: of the file, or of the machine; nil where there
// are no credentials, for a public bucket needs none.
func (c Config) tokens(ctx context.Context) (oauth2.TokenSource, error) {
	ctx = context.WithoutCancel(ctx) // it stays with the credentials, to renew them
	file, err := os.ReadFile(c.Credentials)
	if err != nil && !c.Named {
		if machine, err := google.FindDefaultCredentials(ctx, scope); err == nil {
			return machine.TokenSource, nil
		}
		return nil, nil
	}
	var of struct{ Type google.CredentialsType }
	if err == nil {
		err = json.Unmarshal(file, &of)
	}
	var creds *google.Credentials
	if err == nil {
		creds, err = google.CredentialsFromJSONWithType(ctx, file, of.Type, scope)
	}
	if err != nil {
		name := "the file of gcloud"
		if c.Named {
			name = "GOOGLE_APPLICATION_CREDENTIALS"
		}
		return nil, artifact.NoCredentials(fmt.Sprintf("%s leads to no credentials: %v", name, err))
	}
	return creds.TokenSource, nil
}
