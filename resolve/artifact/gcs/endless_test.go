package gcs

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/artifact/cloudtest"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestEndlessAnswersOfGCSTakeLittleMemory fails when a page of a listing, an error or a
// token that never ends is taken, or takes more memory than the process has; or when an
// object's bytes are bounded by it. It measures memory, so it runs alone.
func TestEndlessAnswersOfGCSTakeLittleMemory(t *testing.T) {
	user := filepath.Join(t.TempDir(), "user.json")
	if err := os.WriteFile(user, []byte(`{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	emulator := map[string]string{"STORAGE_EMULATOR_HOST": "http://emulator"}
	t.Setenv("STORAGE_EMULATOR_HOST", "http://emulator") // which the SDK reads, too
	for name, c := range map[string]struct {
		e   *cloudtest.Endless
		env map[string]string
	}{
		"objects":       {&cloudtest.Endless{Status: 200, Head: `{"items":[{}`, Piece: `,{"name":"a/key","size":"3","generation":"7","updated":"2026-01-02T03:04:05Z"}`}, emulator},
		"empty objects": {&cloudtest.Endless{Status: 200, Head: `{"items":[{}`, Piece: `,{}`}, emulator},
		"directories":   {&cloudtest.Endless{Status: 200, Head: `{"prefixes":[""`, Piece: `,""`}, emulator},
		"one key":       {&cloudtest.Endless{Status: 200, Head: `{"items":[{"name":"`, Piece: "xxxxxxxx"}, emulator},
		"lists":         {&cloudtest.Endless{Status: 200, Head: `{"items":`, Piece: "["}, emulator},
		"an error":      {&cloudtest.Endless{Status: 403, Head: `{"error":{"message":"`, Piece: "xxxxxxxx"}, emulator},
		"a token":       {&cloudtest.Endless{Status: 200, Head: `{"access_token":"`, Piece: "xxxxxxxx"}, map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": user}},
	} {
		d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: func(name string) string { return c.env[name] }, Home: t.TempDir(), transport: c.e}
		open := func(ctx context.Context, _ bool) (*artifact.Bucket, error) { return d.Open(ctx, "bkt") }
		b := artifact.NewBlob("gs://bkt/a", "a", open)
		cloudtest.Bounded(t, name, c.e, func() error {
			_, err := b.List(t.Context(), "")
			return err
		})
		if c.env["STORAGE_EMULATOR_HOST"] != "" {
			cloudtest.ReadsOn(t, b)
		}
	}
}
