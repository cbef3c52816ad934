package test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// workspaceFake is a fake of a Databricks workspace: of the routes that Databricks
// documents, and of those that MLflow's client takes. MLflow's own client is run against
// it, too. All bytes lie in the S3 store of the tests; the URLs are ones that S3 signs, and
// the keys temporary ones.
type workspaceFake struct {
	*fakeAPI
	store *lendingStore
	s3    *s3.Client // which reads for the workspace

	mu     sync.Mutex // guards what follows
	signer *s3.Client
	life   time.Duration
	logins int  // of the service principal
	denied bool // no model may be read
}

// A service principal of the workspace.
const (
	principal       = "a-service-principal"
	principalSecret = "dose-s3cret-of-the-principal"
)

// login gives the token that the API takes to the service principal.
func (w *workspaceFake) login(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.logins++
	life := w.life
	w.mu.Unlock()
	if r.Method != http.MethodPost || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "all-apis" {
		w.t.Errorf("a token is asked for by %s %v", r.Method, r.Form)
	}
	if r.Header.Get("Authorization") != basic(principal, principalSecret) {
		rw.WriteHeader(http.StatusUnauthorized)
		io.WriteString(rw, `{"error":"invalid_client","error_description":"Client authentication failed"}`)
		return
	}
	w.fakeAPI.mu.Lock()
	defer w.fakeAPI.mu.Unlock()
	json.NewEncoder(rw).Encode(map[string]any{"access_token": w.token, "token_type": "Bearer", "scope": "all-apis", "expires_in": int(life.Seconds())})
}

const (
	dapi          = "dapi-s3cret-token"
	dbxExperiment = "1234"
	dbxRun        = "0123456789abcdef0123456789abcdef"
	dbxModel      = "m-0123456789abcdef0123456789abcdef"
	dbxUC         = "main.s.fraud"  // with credentials that are lent
	dbxOwn        = "main.s.shared" // in the workspace's own storage
	dbxWorkspace  = "fraud of old"  // in the workspace's own registry
)

// dbxFiles are below each root.
var dbxFiles = map[string]string{"MLmodel": "flavors: {}\n", "model.pkl": strings.Repeat("weights\n", 3000), "code/a b+c.py": "x = 1\n", "empty": "", "many/1": "1", "many/2": "2", "many/3": "3", "many/4": "4", "many/5": "5", "many/6": "6"}

// Roots of what lies in the store: what a path of the API names.
func rootOfRun() string         { return "/runs/" + dbxRun }
func rootOfLogged() string      { return "/logged/" + dbxModel }
func rootOfUC(n string) string  { return "/uc/" + n }
func rootOfOld(n string) string { return "/old/" + n }

const (
	rootOfOwn    = "/Models/main/s/shared/1"
	rootOfVolume = "/Volumes/main/s/vol/top/dir"
	rootOfDBFS   = "/my/dir"
)

func newWorkspaceFake(t *testing.T) *workspaceFake {
	t.Helper()
	api := theObjects(t).api()
	w := &workspaceFake{store: newLendingStore(t), s3: api, signer: api, life: time.Hour}
	w.fakeAPI = newFakeAPI(t, dapi, slices.Concat(w.tracking(), w.registry(), w.prompts(), w.files())...)
	none := func(rw http.ResponseWriter, _ *http.Request) { writeFake(rw, fakeError{404, "NOT_FOUND", "none"}) }
	// The SDK looks there for what it then takes from the environment.
	w.open = map[string]http.HandlerFunc{"/.well-known/databricks-config": none, "/oidc/.well-known/oauth-authorization-server": none, "/oidc/v1/token": w.login, "/mark": func(http.ResponseWriter, *http.Request) {}}
	dir := t.TempDir()
	for name, text := range dbxFiles {
		f := filepath.Join(dir, "f")
		if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, root := range []string{rootOfRun(), rootOfLogged(), rootOfUC("1"), rootOfUC("2"), rootOfOld("1"), rootOfOwn, rootOfVolume, rootOfDBFS} {
			w.store.put(t, w.key(root+"/"+name), f)
		}
	}
	return w
}

func (w *workspaceFake) key(path string) string { return fmt.Sprintf("dbx%p%s", w, path) }

func (w *workspaceFake) env(more ...string) []string {
	return join([]string{"MLFLOW_TRACKING_URI=databricks", "DATABRICKS_HOST=" + w.srv.URL, "DATABRICKS_TOKEN=" + dapi,
		"MLFLOW_S3_ENDPOINT_URL=" + w.store.srv.URL, "AWS_ACCESS_KEY_ID=mine", "AWS_SECRET_ACCESS_KEY=s3cret-mine", "AWS_DEFAULT_REGION=us-east-1",
		"MLFLOW_TRACKING_TOKEN=s3cret-of-another-server"}, more)
}

// signFor has URLs be signed for another host, which leads to the store.
func (w *workspaceFake) signFor(host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.s3.Options()
	o.BaseEndpoint = aws.String("http://" + host)
	w.signer = s3.New(o)
}

// sign is S3's own signature for a file, with a header that has to be sent with the URL.
func (w *workspaceFake) sign(path string) any {
	w.mu.Lock()
	life, client := w.life, w.signer
	w.mu.Unlock()
	req, err := s3.NewPresignClient(client, s3.WithPresignExpires(life)).PresignGetObject(context.Background(), &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(w.key(path))})
	if err != nil {
		w.t.Error(err)
		return fakeError{500, "INTERNAL_ERROR", err.Error()}
	}
	return map[string]any{"signed_uri": req.URL, "type": "AWS_PRESIGNED_URL", "headers": []any{map[string]any{"name": "X-Of-The-Url", "value": "1"}}}
}

// entries are what is in a directory of a root, with their paths from root, in pages of
// five.
func entries(root, dir string, in map[string]any, key func(path string, isDir bool, size int) map[string]any) (page []any, next string) {
	all := map[string]map[string]any{}
	prefix := dir
	if prefix != "" {
		prefix += "/"
	}
	for name, text := range dbxFiles {
		if name == dir {
			return []any{key(name, false, len(text))}, ""
		}
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			first, _, isDir := strings.Cut(rest, "/")
			all[first] = key(prefix+first, isDir, len(text))
		}
	}
	names := slices.Sorted(maps.Keys(all))
	at := 0
	fmt.Sscan(fmt.Sprint(in["page_token"]), &at)
	for i := at; i < len(names) && i < at+5; i++ {
		page = append(page, all[names[i]])
	}
	if at+5 < len(names) {
		next = fmt.Sprint(at + 5)
	}
	return page, next
}

// listing is MLflow's own, of ListArtifacts.
func listing(root, dir string, in map[string]any) any {
	files, next := entries(root, dir, in, func(p string, isDir bool, size int) map[string]any {
		f := map[string]any{"path": p, "is_dir": isDir}
		if !isDir {
			f["file_size"] = size
		}
		return f
	})
	return pageOf("files", files, next)
}

func pageOf(name string, items []any, next string) map[string]any {
	out := map[string]any{}
	if len(items) > 0 {
		out[name] = items
	}
	if next != "" {
		out["next_page_token"] = next
	}
	return out
}

func field(in map[string]any, name string) string {
	s, _ := in[name].(string)
	return s
}

func one(in map[string]any, name string) string {
	if l, ok := in[name].([]any); ok && len(l) == 1 {
		return fmt.Sprint(l[0])
	}
	return ""
}

var missing = fakeError{404, "RESOURCE_DOES_NOT_EXIST", "there is none"}

const mlflowAPI = "/api/2.0/mlflow/"

func route(method, path string, answer func(path []string, in map[string]any) any, fields ...string) fakeRoute {
	return fakeRoute{method, regexp.MustCompile(path), fields, answer}
}

// tracking are the routes of runs and logged models.
func (w *workspaceFake) tracking() []fakeRoute {
	run := map[string]any{"info": map[string]any{"run_id": dbxRun, "run_uuid": dbxRun, "run_name": "a run", "experiment_id": dbxExperiment, "status": "FINISHED", "start_time": 1700000000000, "end_time": 1700000001000, "lifecycle_stage": "active",
		"artifact_uri": "dbfs:/databricks/mlflow-tracking/" + dbxExperiment + "/" + dbxRun + "/artifacts"}, "data": map[string]any{"params": []any{map[string]any{"key": "lr", "value": "0.1"}}}, "inputs": map[string]any{}}
	model := map[string]any{"info": map[string]any{"model_id": dbxModel, "experiment_id": dbxExperiment, "name": "logged", "status": "LOGGED_MODEL_READY", "creation_timestamp_ms": 1700000000000, "last_updated_timestamp_ms": 1700000000000,
		"artifact_uri": "dbfs:/databricks/mlflow-tracking/" + dbxExperiment + "/logged_models/" + dbxModel + "/artifacts"}, "data": map[string]any{}}
	experiment := map[string]any{"experiment_id": dbxExperiment, "name": "/Users/me/exp", "lifecycle_stage": "active", "artifact_location": "dbfs:/databricks/mlflow-tracking/" + dbxExperiment, "creation_time": 1700000000000}
	of := func(in map[string]any, name, id string, answer func() any) any {
		if field(in, name) != id {
			return missing
		}
		return answer()
	}
	return []fakeRoute{
		route("POST", mlflowAPI+"experiments/search", func([]string, map[string]any) any { return pageOf("experiments", []any{experiment}, "") }, "max_results", "page_token", "view_type", "order_by", "filter"),
		route("GET", mlflowAPI+"experiments/get-by-name", func(_ []string, in map[string]any) any {
			return of(in, "experiment_name", "/Users/me/exp", func() any { return map[string]any{"experiment": experiment} })
		}, "experiment_name"),
		route("GET", mlflowAPI+"runs/get", func(_ []string, in map[string]any) any {
			return of(in, "run_id", dbxRun, func() any { return map[string]any{"run": run} })
		}, "run_id", "run_uuid"),
		route("POST", mlflowAPI+"runs/search", func([]string, map[string]any) any { return pageOf("runs", []any{run}, "") }, "experiment_ids", "max_results", "page_token", "order_by", "filter", "run_view_type"),
		route("GET", mlflowAPI+"artifacts/list", func(_ []string, in map[string]any) any {
			return of(in, "run_id", dbxRun, func() any { return listing(rootOfRun(), field(in, "path"), in) })
		}, "run_id", "path", "page_token"),
		route("POST", mlflowAPI+"artifacts/credentials-for-read", func(_ []string, in map[string]any) any {
			return of(in, "run_id", dbxRun, func() any {
				return pageOf("credential_infos", []any{w.sign(rootOfRun() + "/" + one(in, "path"))}, "")
			})
		}, "run_id", "path", "page_token"),
		route("POST", mlflowAPI+"logged-models/search", func(_ []string, in map[string]any) any {
			if n, _ := in["max_results"].(float64); n > 50 {
				return fakeError{400, "INVALID_PARAMETER_VALUE", "max_results is at most 50"}
			}
			if f := field(in, "filter"); f != "" && !strings.Contains(f, dbxModel) {
				return map[string]any{}
			}
			return pageOf("models", []any{model}, "")
		}, "experiment_ids", "max_results", "page_token", "order_by", "filter", "datasets"),
		route("GET", mlflowAPI+"logged-models/"+dbxModel, func([]string, map[string]any) any { return map[string]any{"model": model} }, "model_id"),
		route("GET", mlflowAPI+"logged-models/"+dbxModel+"/artifacts/directories", func(_ []string, in map[string]any) any {
			return listing(rootOfLogged(), field(in, "artifact_directory_path"), in)
		}, "model_id", "artifact_directory_path", "page_token"),
		route("POST", mlflowAPI+"logged-models/"+dbxModel+"/artifacts/credentials-for-download", func(_ []string, in map[string]any) any {
			return pageOf("credentials", []any{map[string]any{"model_id": dbxModel, "credential_info": w.sign(rootOfLogged() + "/" + one(in, "paths"))}}, "")
		}, "model_id", "paths", "page_token"),
	}
}

// serve sends a file of the store, a range of it where ranged.
func (w *workspaceFake) serve(path string, ranged bool) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		in := &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(w.key(path))}
		if h := r.Header.Get("Range"); h != "" && ranged {
			in.Range = aws.String(h)
		}
		out, err := w.s3.GetObject(r.Context(), in)
		if err != nil {
			writeFake(rw, fakeError{404, "NOT_FOUND", "no such file"})
			return
		}
		defer out.Body.Close()
		rw.Header().Set("Content-Type", "application/octet-stream")
		rw.Header().Set("Content-Length", fmt.Sprint(aws.ToInt64(out.ContentLength)))
		rw.Header().Set("Last-Modified", out.LastModified.Format(http.TimeFormat))
		if in.Range != nil {
			rw.Header().Set("Content-Range", aws.ToString(out.ContentRange))
			rw.WriteHeader(http.StatusPartialContent)
		}
		io.Copy(rw, out.Body)
	})
}

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}
