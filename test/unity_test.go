package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// unityServer is a fake of an open source Unity Catalog server, whose models' files lie
// in the S3 store of the tests, but for those of one version, which are on this machine.
// MLflow's own client is run against it, too.
type unityServer struct {
	*fakeAPI
	store *lendingStore
	local string // a directory
	life  time.Duration

	mu     sync.Mutex // guards what follows
	denied bool       // no credentials are lent
}

const (
	unityToken = "s3cret-uc-token"
	unityModel = "main.ml team.fraud"
)

// unityModels are the models of the catalog, each with its versions.
var unityModels = map[string][]int{unityModel: {1, 2, 3}, "main.ml team.other": {1}, "dev.s.empty": {}}

func newUnityServer(t *testing.T) *unityServer {
	t.Helper()
	u := &unityServer{store: newLendingStore(t), local: t.TempDir(), life: time.Hour}
	u.fakeAPI = newFakeAPI(t, unityToken,
		fakeRoute{"GET", regexp.MustCompile("/api/2.1/unity-catalog/models"), []string{"catalog_name", "schema_name", "max_results", "page_token"}, u.models},
		fakeRoute{"GET", regexp.MustCompile("/api/2.1/unity-catalog/models/([^/]+)"), []string{"full_name"}, u.model},
		fakeRoute{"GET", regexp.MustCompile("/api/2.1/unity-catalog/models/([^/]+)/versions"), []string{"full_name", "max_results", "page_token"}, u.versions},
		fakeRoute{"GET", regexp.MustCompile("/api/2.1/unity-catalog/models/([^/]+)/versions/([0-9]+)"), []string{"full_name", "version"}, u.version},
		fakeRoute{"POST", regexp.MustCompile("/api/2.1/unity-catalog/temporary-model-version-credentials"), []string{"catalog_name", "schema_name", "model_name", "version", "operation"}, u.lend},
	)
	files := map[string]string{"MLmodel": "flavors: {}\n", "model.pkl": strings.Repeat("weights\n", 1000), "code/a b.py": "x = 1\n", "empty": ""}
	for n, text := range files {
		for version := 1; version <= 2; version++ {
			name := filepath.Join(t.TempDir(), "f")
			err := os.WriteFile(name, []byte(text+fmt.Sprint(version)[:len(text)%2]), 0o644)
			if err != nil {
				t.Fatal(err)
			}
			u.store.put(t, u.prefix(version)+"/"+n, name)
		}
		at := filepath.Join(u.local, n)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

func (s *lendingStore) put(t *testing.T, key, file string) {
	t.Helper()
	theObjects(t).put(t, "s3", key, file)
}

func (u *unityServer) prefix(version int) string {
	return fmt.Sprintf("uc%p/models/%d", u, version)
}

func (u *unityServer) models(_ []string, in map[string]any) any {
	names := slices.Sorted(maps.Keys(unityModels))
	i := slices.Index(names, fmt.Sprint(in["page_token"]))
	i = max(i, 0)
	out := map[string]any{"registered_models": []any{unityInfo(names[i])}}
	if i+1 < len(names) {
		out["next_page_token"] = names[i+1] // a page of one
	}
	return out
}

func unityInfo(name string) map[string]any {
	parts := strings.Split(name, ".")
	return map[string]any{"catalog_name": parts[0], "schema_name": parts[1], "name": parts[2], "full_name": name, "created_at": 1700000000123, "updated_at": 1700000000456, "id": "x", "comment": "c"}
}

func (u *unityServer) model(path []string, _ map[string]any) any {
	if _, ok := unityModels[path[0]]; !ok {
		return fakeError{404, "NOT_FOUND", "Model not found: " + path[0]}
	}
	return unityInfo(path[0])
}

func (u *unityServer) versions(path []string, in map[string]any) any {
	numbers, ok := unityModels[path[0]]
	if !ok {
		return fakeError{404, "NOT_FOUND", "Model not found: " + path[0]}
	}
	at, _ := strconv.Atoi(fmt.Sprint(in["page_token"]))
	out := map[string]any{"model_versions": []any{}}
	if at < len(numbers) {
		out["model_versions"] = []any{u.versionInfo(path[0], numbers[at])}
		out["next_page_token"] = fmt.Sprint(at + 1)
	}
	return out
}

func (u *unityServer) versionInfo(name string, version int) map[string]any {
	parts := strings.Split(name, ".")
	at := "s3://" + bucket + "/" + u.prefix(version)
	if version == 3 {
		at = "file://" + u.local
	}
	return map[string]any{"catalog_name": parts[0], "schema_name": parts[1], "model_name": parts[2], "version": version, "status": "READY", "source": "/tmp/of/a/run", "run_id": "0123456789abcdef0123456789abcdef", "storage_location": at, "created_at": 1700000001000 + version, "id": "y"}
}

func (u *unityServer) version(path []string, _ map[string]any) any {
	n, _ := strconv.Atoi(path[1])
	if !slices.Contains(unityModels[path[0]], n) {
		return fakeError{404, "NOT_FOUND", "Model version not found"}
	}
	return u.versionInfo(path[0], n)
}

func (u *unityServer) lend(_ []string, in map[string]any) any {
	name := fmt.Sprintf("%v.%v.%v", in["catalog_name"], in["schema_name"], in["model_name"])
	n, _ := strconv.Atoi(fmt.Sprint(in["version"]))
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case !slices.Contains(unityModels[name], n):
		return fakeError{404, "NOT_FOUND", "Model version not found"}
	case u.denied:
		return fakeError{403, "PERMISSION_DENIED", "User cannot read the model"}
	case in["operation"] != "READ_MODEL_VERSION":
		u.t.Errorf("credentials for %v are asked for", in["operation"])
	}
	k := u.store.lend(u.prefix(n), u.life)
	return map[string]any{"aws_temp_credentials": map[string]any{"access_key_id": k.Key, "secret_access_key": k.Secret, "session_token": k.Session}, "expiration_time": k.until.UnixMilli()}
}

// env is what a client of the catalog needs. The keys of its own open nothing.
func (u *unityServer) env() []string {
	return []string{"MLFLOW_REGISTRY_URI=uc:" + u.srv.URL, "MLFLOW_UC_OSS_TOKEN=" + unityToken,
		"MLFLOW_S3_ENDPOINT_URL=" + u.store.srv.URL, "AWS_ACCESS_KEY_ID=mine", "AWS_SECRET_ACCESS_KEY=s3cret-mine", "AWS_DEFAULT_REGION=us-east-1",
		"MLFLOW_TRACKING_TOKEN=s3cret-of-the-tracking-server"}
}

// catalogAnswer is what unity.py prints.
type catalogAnswer struct {
	Models   []string
	Numbers  []int
	Created  int64
	Versions map[string][]any
}

// TestUnityCatalogIsReadAsMLflowReadsIt fails when a model of an open source Unity
// Catalog is not found, or its files differ from what MLflow's client downloads, or more
// is asked for than that asks for; or when keys of the client's own, or a tracking
// server's token, are sent.
func TestUnityCatalogIsReadAsMLflowReadsIt(t *testing.T) {
	t.Parallel()
	u, dst := newUnityServer(t), t.TempDir()
	tracking := shared.get(t, "sqlite 3.17").uri
	env := append(u.env(), "MLFLOW_TRACKING_URI="+tracking)
	var theirs catalogAnswer
	if err := json.Unmarshal([]byte(release("mlflow3").python(t, env, "", "unity.py", dst, unityModel, "1", "2", "3")), &theirs); err != nil {
		t.Fatal(err)
	}
	u.take()
	u.store.take()
	for _, version := range []string{"1", "2", "3"} {
		uri := "models:/" + unityModel + "/" + version
		release("mlflow3").code(t, t.TempDir(), env, "", "-c", "import mlflow, sys; mlflow.artifacts.download_artifacts(sys.argv[1], dst_path='.')", uri)
		asked := u.take()
		ours := t.TempDir()
		if _, err := command(t, env, "download", "--dst", ours, uri); err != nil {
			t.Fatal(err)
		}
		differ(t, uri, ours, filepath.Join(dst, version))
		if mine := u.take(); len(mine) > len(asked) {
			t.Errorf("%s takes\n%s\nand MLflow's client\n%s", uri, strings.Join(mine, "\n"), strings.Join(asked, "\n"))
		}
	}
	for _, ask := range [][]string{{"ls", "models:/" + unityModel + "/1"}, {"cat", "models:/" + unityModel + "/2/code/a b.py"}, {"resolve", "models:/" + unityModel + "/1"}} {
		if out, err := command(t, env, ask...); err != nil || len(out) == 0 {
			t.Errorf("%v: %s, %v", ask, out, err)
		}
	}
	m := mountAt(t, tracking, u.env(), "--log-level", "debug")
	listed, err := os.ReadDir(m.path("models"))
	var names []string
	for _, e := range listed {
		if strings.Count(e.Name(), ".") == 2 {
			names = append(names, e.Name())
		}
	}
	if slices.Sort(names); err != nil || !slices.Equal(names, theirs.Models) {
		t.Errorf("%v is listed, %v; and %v by MLflow's client", names, err, theirs.Models)
	}
	for _, n := range theirs.Numbers {
		if _, err := os.Stat(m.path("models", unityModel, fmt.Sprint(n), "MLmodel")); err != nil {
			t.Error(err)
		}
	}
	// A name of another shape is no model, and nobody is asked for it.
	u.take()
	for _, odd := range []string{"fraud", "ml.fraud", "a.b.c.d", ".git"} {
		if _, err := os.Stat(m.path("models", odd)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", odd, err)
		}
	}
	if asked := u.take(); len(asked) > 0 {
		t.Errorf("names that are none took %v", asked)
	}
	if strings.Contains(m.log.String(), "s3cret") {
		t.Errorf("a secret is in the log:\n%s", m.log)
	}
}

// TestLentCredentialsAreRenewed fails when a mount stops reading a version as the
// credentials that it was lent end, be it at their time or before; or when each read asks
// for new ones; or when they are lent once for each of many readers at once; or when some
// come to lie on the disk.
func TestLentCredentialsAreRenewed(t *testing.T) {
	t.Parallel()
	u := newUnityServer(t)
	u.life = 12 * time.Second
	cache := t.TempDir()
	m := mountRaced(t, shared.get(t, "sqlite 3.17").uri, u.env(), "--cache-dir", cache, "--metadata-ttl", "1s", "--fill-limit", "0", "--log-level", "debug")
	lent := func() int { return count.Of(u.take(), "/temporary-model-version-credentials") }
	list := func(version int) error {
		_, err := output("ls", m.path("models", unityModel, fmt.Sprint(version)))
		return err
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := read(m.path("models", unityModel, "1", "model.pkl")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := lent(); n != 1 {
		t.Errorf("16 readers at once are lent credentials %d times", n)
	}
	for begin := time.Now(); time.Since(begin) < 2*u.life; time.Sleep(time.Second) {
		if err := list(1); err != nil {
			t.Fatal(err)
		}
	}
	if _, turned := u.store.take(); turned > 0 {
		t.Errorf("%d requests were sent with credentials that had ended", turned)
	}
	if n := lent(); n < 1 || n > 3 { // a listing is asked for each 6 s
		t.Errorf("in %v credentials for %v are lent %d times", 2*u.life, u.life, n)
	}
	time.Sleep(6 * time.Second) // how often a bucket whose keys are refused is opened anew
	u.store.end()
	waitFor(t, "the version to be read after its keys were ended", 10*time.Second, func() bool { return list(1) == nil })
	m.stop()
	for _, secret := range []string{"s3cret-lent", "s3cret-session", "ASIATEMPORARY", unityToken} {
		if out, _ := output("grep", "-rl", secret, cache); len(out) > 0 {
			t.Errorf("%s lies in %s", secret, out)
		}
		if strings.Contains(m.log.String(), secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
}

// TestUnityCatalogRefusesInASentence fails when a user who may not read a model, has no
// token, or names a model in two parts is not told what to do; or when a catalog that is
// busy, or gone, costs what it could tell a moment ago.
func TestUnityCatalogRefusesInASentence(t *testing.T) {
	t.Parallel()
	u := newUnityServer(t)
	tracking := "MLFLOW_TRACKING_URI=" + shared.get(t, "sqlite 3.17").uri
	env := append(append(u.env(), tracking), fast...)
	u.denied = true
	refuses(t, 4, env, []string{"ls", "models:/" + unityModel + "/1"}, "EXECUTE on the model "+unityModel, "USE SCHEMA on main.ml team", "USE CATALOG on main")
	u.denied = false
	refuses(t, 3, env, []string{"ls", "models:/ml.fraud/1"}, "write catalog.schema.name")
	refuses(t, 3, env, []string{"ls", "models:/" + unityModel + "/9"}, "not found")
	refuses(t, 3, env, []string{"ls", "models:/" + unityModel + "/latest"}, "name a version's number")
	u.set("another", 0)
	refuses(t, 4, env, []string{"ls", "models:/" + unityModel + "/1"}, "401", "MLFLOW_UC_OSS_TOKEN")
	out, err := mlflowfs(t, env, "doctor", "--cache-dir", t.TempDir()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "left out     registered models: ") || !strings.Contains(string(out), "set MLFLOW_UC_OSS_TOKEN to") {
		t.Errorf("doctor says\n%s%v", out, err)
	}
	u.set(unityToken, 2)
	if _, err := command(t, env, "ls", "models:/"+unityModel+"/1"); err != nil {
		t.Errorf("a catalog that is busy for a moment: %v", err)
	}
	m := mountAt(t, strings.TrimPrefix(tracking, "MLFLOW_TRACKING_URI="), append(u.env(), fast...), "--cache-dir", t.TempDir(), "--metadata-ttl", "1s")
	if _, err := read(m.path("models", unityModel, "1", "model.pkl")); err != nil {
		t.Fatal(err)
	}
	u.srv.Close()
	time.Sleep(1500 * time.Millisecond)
	if _, err := read(m.path("models", unityModel, "1", "model.pkl")); err != nil {
		t.Errorf("with the catalog gone: %v", err)
	}
}

var _ http.Handler = (*fakeAPI)(nil)
