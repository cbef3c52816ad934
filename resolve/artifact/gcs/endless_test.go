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
	cases := map[string]cloudtest.Case{
		"objects":       {Endless: &cloudtest.Endless{Status: 200, Head: `{"items":[{}`, Piece: `,{"name":"a/key","size":"3","generation":"7","updated":"2026-01-02T03:04:05Z"}`}, Env: emulator},
		"empty objects": {Endless: &cloudtest.Endless{Status: 200, Head: `{"items":[{}`, Piece: `,{}`}, Env: emulator},
		"directories":   {Endless: &cloudtest.Endless{Status: 200, Head: `{"prefixes":[""`, Piece: `,""`}, Env: emulator},
		"one key":       {Endless: &cloudtest.Endless{Status: 200, Head: `{"items":[{"name":"`, Piece: "xxxxxxxx"}, Env: emulator},
		"lists":         {Endless: &cloudtest.Endless{Status: 200, Head: `{"items":`, Piece: "["}, Env: emulator},
		"an error":      {Endless: &cloudtest.Endless{Status: 403, Head: `{"error":{"message":"`, Piece: "xxxxxxxx"}, Env: emulator},
		"a token":       {Endless: &cloudtest.Endless{Status: 200, Head: `{"access_token":"`, Piece: "xxxxxxxx"}, Env: map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": user}, Token: true},
	}
	cloudtest.EachBounded(t, cases, func(c cloudtest.Case) *artifact.Blob {
		d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: c.Getenv, Home: t.TempDir(), transport: c}
		open := func(ctx context.Context, _ bool) (*artifact.Bucket, error) { return d.Open(ctx, "bkt") }
		return artifact.NewBlob("gs://bkt/a", "a", open)
	}, func(b *artifact.Blob) error {
		_, err := b.List(t.Context(), "")
		return err
	})
}
