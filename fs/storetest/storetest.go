// Package storetest makes a FileStore, of which the tests of fs and fs/fusefs show the tree.
package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// Store is a FileStore. It ends with its test.
type Store struct {
	Dir string
	t   *testing.T
}

// New makes a store with a little of everything.
func New(t *testing.T) Store {
	t.Helper()
	s := Store{t.TempDir(), t}
	s.experiment("0", "Default")
	s.experiment("1", "a/b")
	s.experiment("2", "..")
	s.experiment("3", "100%2F sure")
	s.experiment("4", strings.Repeat("é", 200))
	s.run(1, "same", 1_000_000, 2_000_000, 3, "active")
	s.run(2, "same", 3_000_000, 0, 1, "active")
	s.run(3, "..", 2_000_000, 2_500_000, 4, "active")
	s.run(4, "deleted", 2_000_000, 2_500_000, 3, "deleted")
	for name, content := range map[string]string{"empty": "", "a/b/c.txt": "deep", "names/sp ace #?%41+é😀": "x", ".dot": "y"} {
		s.Write("0/"+RunID(1)+"/artifacts/"+name, content)
	}
	s.Write("0/models/"+ModelID+"/meta.yaml", fmt.Sprintf("model_id: %s\nexperiment_id: '0'\nname: net\nsource_run_id: %s\nartifact_location: %s/0/models/%s/artifacts\nstatus: 2\ncreation_timestamp: 1500000\n", ModelID, RunID(1), s.Dir, ModelID))
	s.Write("0/models/"+ModelID+"/artifacts/MLmodel", "flavors: {}\n")
	s.Write("models/at@sign/meta.yaml", "name: at@sign\ncreation_timestamp: 1600000\n")
	s.Write("models/at@sign/aliases/3", "2")
	for v, stage := range map[int]string{1: "Production", 2: "None", 10: "Archived"} {
		s.Write(fmt.Sprintf("models/at@sign/version-%d/meta.yaml", v), fmt.Sprintf("name: at@sign\nversion: %d\ncurrent_stage: %s\nsource: models:/%s\nstorage_location: %s/0/models/%s/artifacts\nstatus: READY\ncreation_timestamp: 1700000\n", v, stage, ModelID, s.Dir, ModelID))
	}
	return s
}

// ModelID is the id of the logged model.
const ModelID = "m-0123456789abcdef0123456789abcdef"

// RunID is the id of the run number n.
func RunID(n int) string { return fmt.Sprintf("%08x%024x", n, n) }

// Write writes a file of the store.
func (s Store) Write(name, content string) {
	s.t.Helper()
	p := filepath.Join(s.Dir, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
		s.t.Fatal(err)
	}
}

func (s Store) experiment(id, name string) {
	b, _ := json.Marshal(name)
	s.Write(id+"/meta.yaml", fmt.Sprintf("experiment_id: '%s'\nname: %s\nlifecycle_stage: active\ncreation_time: 1000\n", id, b))
}

// run is one of the experiment 0.
func (s Store) run(n int, name string, start, end int64, status int, stage string) {
	b, _ := json.Marshal(name)
	s.Write("0/"+RunID(n)+"/meta.yaml", fmt.Sprintf("run_id: %s\nexperiment_id: '0'\nrun_name: %s\nstart_time: %d\nend_time: %d\nstatus: %d\nlifecycle_stage: %s\nartifact_uri: %s\n",
		RunID(n), b, start, end, status, stage, filepath.Join(s.Dir, "0", RunID(n), "artifacts")))
}

// Resolver is one of the store, whose answers are believed for ttl; 0: as usual.
func (s Store) Resolver(ttl time.Duration) *resolve.Resolver {
	s.t.Helper()
	log := slog.New(slog.DiscardHandler)
	st, _, err := meta.Open(s.Dir, func(string) string { return "" }, log)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { st.Close() })
	return resolve.New(resolve.Options{Tracking: st, Log: log, TTL: ttl})
}
