package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mlflowfs/mlflowfs/test/anykey"
	"github.com/mlflowfs/mlflowfs/test/draw"
)

// situation is one draw: an environment, a store, and URIs of it that are asked for.
type situation struct {
	Seed, N uint64
	Store   string
	draw.Environment
	Keys  map[string]string `json:"keys,omitempty"` // of the bucket
	URIs  []string          `json:"uris"`
	Mount bool              `json:"mount"`

	seed    *seed     // of a seeded store; nil for a bucket
	root    string    // the URI of a bucket's directory; empty for a seeded store
	clients []release // that can read the store
	v3      bool      // the store is of MLflow 3
	unproxy bool      // a proxy is named for addresses of this machine
	asIf    string    // the tracking URI that MLflow's client is given; empty: the same
	old     string    // what the sqlite file was until it is mounted; empty: the same
	home    string
}

// bucketRun is a run whose artifacts are in a bucket, and a model of one version of
// them.
type bucketRun struct{ scheme, run, model, root string }

// world is what all situations are drawn from.
type world struct {
	seed    uint64
	stores  map[string]*seeded
	bent    map[string]*bent
	objects *objectStores
	runs    []bucketRun
	keys    map[string]map[string]string // of the runs in GCS and Azure, by their roots
	server  *server                      // of the bucketRuns
	spaces  *seeded                      // with workspaces
}

// newWorld starts the servers, and fills GCS and Azure.
func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{seed: seed, stores: map[string]*seeded{}, objects: theObjects(t), keys: map[string]map[string]string{}}
	for _, kind := range storeKinds {
		w.stores[kind] = shared.get(t, kind)
	}
	w.bent = bentStores(t, w.stores)
	var err error
	if w.server, err = onS3.ofRelease("mlflow3"); err != nil {
		t.Fatal(err)
	}
	w.spaces = shared.get(t, "server 3.17 with workspaces")
	d := draw.New(seed, 1<<40)
	for i, scheme := range []string{"s3", "s3", "s3", "s3", "s3", "gs", "gs", "gs", "wasbs", "wasbs", "wasbs"} {
		location := fmt.Sprintf("%s://%s%s/means-%d/", scheme, bucket, map[string]string{"wasbs": azureHost}[scheme], d.Uint32())
		location += []string{"run", "a//run", "run/", "a b+c/é", "x=y&z"}[i%5]
		w.runs = append(w.runs, w.newRun(t, scheme, location, i))
	}
	w.fill(t, d)
	return w
}

func (w *world) newRun(t *testing.T, scheme, location string, i int) bucketRun {
	t.Helper()
	url := w.server.url()
	run := newRun(t, url, newExperiment(t, url, location, location))
	finished(t, url, run)
	got := api(t, url, "GET /api/2.0/mlflow/runs/get?run_id="+run, nil)["run"].(map[string]any)["info"].(map[string]any)
	r := bucketRun{scheme, run, fmt.Sprintf("means-%s", run[:8]), got["artifact_uri"].(string)}
	api(t, url, "/api/2.0/mlflow/registered-models/create", map[string]any{"name": r.model})
	source := []string{"runs:/" + run + "/model", r.root + "/model", r.root}[i%3]
	api(t, url, "/api/2.0/mlflow/model-versions/create", map[string]any{"name": r.model, "source": source, "run_id": run})
	return r
}

// fill gives the runs in GCS and Azure their objects.
func (w *world) fill(t *testing.T, d draw.Draw) {
	t.Helper()
	objects := map[string]map[string][]byte{"gs": {}, "wasbs": {}}
	for _, r := range w.runs {
		if r.scheme == "s3" {
			continue
		}
		w.keys[r.root] = d.Keys(keyOf(r.root), 14, false)
		for k, content := range w.keys[r.root] {
			objects[r.scheme][k] = []byte(content)
		}
	}
	for scheme, all := range objects {
		in, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		var refused []string
		out := release("mlflow3").python(t, w.objects.env(), string(in), "objects.py", scheme, bucket)
		if err := json.Unmarshal([]byte(out), &refused); err != nil {
			t.Fatal(err, out)
		}
		for _, keys := range w.keys {
			for _, k := range refused {
				delete(keys, k)
			}
		}
	}
}

// keyOf is the key in a storage URI.
func keyOf(uri string) string {
	_, rest, _ := strings.Cut(uri, "://")
	_, key, _ := strings.Cut(rest, "/")
	return key
}

// lane asks in one situation after another, with servers' doors and clients of its own.
type lane struct {
	*world
	t        *testing.T
	dir      string
	recorder *recorder
	fronts   map[string]front
	clients  map[release]*client
	ca       string

	mu   sync.Mutex // guards keys
	keys anykey.Bucket
}

func (w *world) newLane(t *testing.T) *lane {
	t.Helper()
	l := &lane{world: w, t: t, dir: t.TempDir(), recorder: &recorder{}, fronts: map[string]front{}, clients: map[release]*client{}}
	s3 := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		keys := l.keys
		l.mu.Unlock()
		keys.ServeHTTP(rw, r)
	})
	outside := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusBadGateway) })
	tracking := func(s *server) http.Handler { return through(strings.TrimPrefix(s.url(), "http://")) }
	var ca []byte
	for name, next := range map[string]http.Handler{
		"server 3.17": tracking(w.stores["server 3.17"].server), "server 2.22": tracking(w.stores["server 2.22"].server), "server of buckets": tracking(w.server), "server of workspaces": tracking(w.spaces.server),
		"s3": s3, "gs": through(w.objects.gcs), "wasbs": through(w.objects.azure), "outside": outside,
	} {
		l.fronts[name], ca = newFront(t, l.recorder, name, next)
	}
	l.ca = filepath.Join(l.dir, "ca.pem")
	if err := os.WriteFile(l.ca, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []release{"mlflow3", "mlflow2"} {
		l.clients[r] = theClient(t, r)
	}
	return l
}

// draw makes the situation n.
func (l *lane) draw(n uint64) *situation {
	d := draw.New(l.seed, n)
	home := filepath.Join(l.dir, fmt.Sprint(n))
	s := &situation{Seed: l.seed, N: n, Environment: draw.NewEnvironment(home), home: home, clients: []release{"mlflow3", "mlflow2"}}
	for name, value := range map[string]string{
		"PATH": os.Getenv("PATH"), "LANG": "C.UTF-8", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "AWS_MAX_ATTEMPTS": "1",
		"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
		"AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true", "GCE_METADATA_HOST": "127.0.0.1:1",
		"HTTPS_PROXY": "http://" + l.fronts["outside"].http, "NO_PROXY": "127.0.0.1,localhost",
	} {
		s.Env[name] = value
	}
	if n < uint64(len(everyFormOf)) {
		l.everyForm(s, everyFormOf[n])
		return s
	}
	switch d.IntN(9) {
	case 0, 1:
		l.served(s, d, "server 3.17")
	case 2:
		l.served(s, d, "server 2.22")
	case 3, 4, 5:
		l.bucket(s, d, "s3")
	case 6:
		l.bucket(s, d, d.One("gs", "wasbs"))
	case 7:
		l.local(s, d)
	case 8:
		l.spaced(s, d)
	}
	s.Mount = d.Odds(6)
	return s
}

// everyFormOf are the stores that are asked for every form of URI.
var everyFormOf = []string{"server 3.17", "server 2.22", "postgresql 3.17", "mysql 3.17"}

// everyForm is a seeded store that needs nothing said, and is asked for every form of
// URI.
func (l *lane) everyForm(s *situation, kind string) {
	of := l.stores[kind]
	s.Store, s.seed, s.v3, s.Mount = kind, of.seed, of.V3, true
	if s.Env["MLFLOW_TRACKING_URI"] = of.uri; of.server != nil {
		s.Env["MLFLOW_TRACKING_URI"] = "http://" + l.fronts[kind].http
	} else {
		s.clients = []release{of.release} // 2 refuses newer tables, as 3 does older ones
	}
	s.URIs = everyForm(of)
}

// served is a seeded store behind a server.
func (l *lane) served(s *situation, d draw.Draw, kind string) {
	of := l.stores[kind]
	s.Store, s.seed, s.v3 = kind, of.seed, of.V3
	l.tracking(s, d, l.fronts[kind])
	s.URIs = someURIs(d.Rand, of, 8)
}

// local is a store on this machine.
func (l *lane) local(s *situation, d draw.Draw) {
	s.Store = d.One(append([]string{"sqlite 3.17", "sqlite 2.22", "files 3.17", "files 2.22", "postgresql 3.17", "mysql 3.17"}, slices.Sorted(maps.Keys(l.bent))...)...)
	of, uri := l.stores[s.Store], ""
	if b := l.bent[s.Store]; b != nil {
		of, uri, s.asIf, s.old = b.of, b.uri, b.asIf, b.old
	} else {
		uri = of.uri
	}
	s.seed, s.v3 = of.seed, of.V3
	switch s.Store {
	case "sqlite 3.17", "postgresql 3.17", "mysql 3.17", "sqlite upgraded", "sqlite 1.30 upgraded":
		s.clients = []release{"mlflow3"} // 2 refuses a newer file, as 3 does an older one
	case "sqlite 2.22":
		s.clients = []release{"mlflow2"}
	default:
		uri = d.One(uri, uri, uri+"/", "file://"+uri, "file:"+uri)
	}
	s.Env["MLFLOW_TRACKING_URI"] = uri
	s.URIs = someURIs(d.Rand, of, 8)
}

// spaced is a server with workspaces, of which one is asked for, or none.
func (l *lane) spaced(s *situation, d draw.Draw) {
	s.Store, s.v3 = "server of workspaces", true
	l.tracking(s, d, l.fronts[s.Store])
	if d.IntN(4) > 0 {
		s.Env["MLFLOW_WORKSPACE"] = d.One("team-a", "team-a", " team-a\t", "default", "none", "")
		s.clients = []release{"mlflow3"}
	}
	for range 8 {
		run := l.spaces.Spaces[d.One("default", "team-a")]
		s.URIs = append(s.URIs, d.One("runs:/"+run+"/", "models:/shared@champion/", "models:/shared/1/", "mlflow-artifacts:/")+d.One("", "doc", "doc/text.txt", "model/MLmodel", "MLmodel", "workspaces/team-a", "2/"+run+"/artifacts/doc", "workspaces/default/1", "none"))
	}
}

// tracking has a server asked, in an environment that says as whom, and how.
func (l *lane) tracking(s *situation, d draw.Draw, f front) {
	if d.IntN(4) > 0 {
		d.Tracking(&s.Environment)
	}
	isSigned := d.Odds(10)
	if isSigned {
		d.Signed(&s.Environment)
	}
	if s.Env["MLFLOW_TRACKING_AUTH"] != "" || s.Env["MLFLOW_WORKSPACE"] != "" {
		s.clients = []release{"mlflow3"} // 2 knows neither
	}
	host := d.One("127.0.0.1", "127.0.0.1", "localhost")
	_, port, _ := strings.Cut(f.http, ":")
	scheme, rest := "http", d.One("", "", "", "/", "/moved", "/moved/")
	if isSigned { // the signer says the first host to the second one, too
		rest = ""
	}
	missing, wrong := filepath.Join(l.dir, "none.pem"), l.objects.ca
	trust := func(odds int, of ...string) {
		for _, name := range []string{"MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} {
			d.Set(s.Environment, odds, name, of...)
		}
	}
	switch d.IntN(8) {
	case 0, 1:
		scheme, rest = "https", ""
		_, port, _ = strings.Cut(f.https, ":")
		if d.Odds(2) {
			s.Env[d.One("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")] = l.ca
		} else {
			trust(3, l.ca, wrong, missing)
			d.Set(s.Environment, 2, "MLFLOW_TRACKING_INSECURE_TLS", "true", "1", "false")
		}
	case 2:
		host, port, rest = "mlflow.example", "5000", ""
		s.Env[d.One("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")] = "http://" + d.One("", "u:p@", "u@") + f.http
	case 3:
		if d.Odds(3) {
			s.unproxy = true
			s.Env["http_proxy"] = "http://" + l.fronts["outside"].http
			delete(s.Env, "NO_PROXY")
		}
	}
	if scheme == "http" && d.Odds(6) {
		trust(2, l.ca, missing)
		d.Set(s.Environment, 4, "MLFLOW_TRACKING_CLIENT_CERT_PATH", missing)
	}
	d.Set(s.Environment, 12, "MLFLOW_ALLOW_HTTP_REDIRECTS", "false", "true", "0")
	s.Env["MLFLOW_TRACKING_URI"] = scheme + "://" + s.User + host + ":" + port + rest
}

// bucket is a run of the third server, whose artifacts are in a bucket.
func (l *lane) bucket(s *situation, d draw.Draw, scheme string) {
	runs := slices.DeleteFunc(slices.Clone(l.runs), func(r bucketRun) bool { return r.scheme != scheme })
	r := runs[d.IntN(len(runs))]
	s.Store, s.root, s.v3 = scheme, r.root, true
	if d.Odds(3) {
		l.tracking(s, d, l.fronts["server of buckets"])
	} else {
		s.Env["MLFLOW_TRACKING_URI"] = "http://" + l.fronts["server of buckets"].http
	}
	switch f := l.fronts[scheme]; scheme {
	case "s3":
		s.Keys = d.Keys(keyOf(r.root), 12, d.Odds(3))
		l.aws(s, d, f)
	case "gs":
		s.Keys = l.world.keys[r.root]
		s.Env["STORAGE_EMULATOR_HOST"] = "http://" + f.http
		d.Set(s.Environment, 4, "GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(l.dir, "none.json"))
	case "wasbs":
		s.Keys = l.world.keys[r.root]
		endpoint := "http://" + f.http + "/" + account
		good := "DefaultEndpointsProtocol=http;AccountName=" + account + ";AccountKey=" + azKey + ";BlobEndpoint=" + endpoint
		s.Env["AZURE_STORAGE_CONNECTION_STRING"] = d.One(good, good+";", good, "BlobEndpoint="+endpoint+";SharedAccessSignature=sv=2021&sig=abc", "nonsense")
		d.Set(s.Environment, 4, "AZURE_STORAGE_ACCESS_KEY", azKey)
		if d.Odds(6) {
			delete(s.Env, "AZURE_STORAGE_CONNECTION_STRING")
			s.Env["AZURE_STORAGE_ACCESS_KEY"] = azKey // of the account, at its host
		}
	}
	for range 8 {
		s.URIs = append(s.URIs, r.uri(d, s.Keys))
	}
}

// aws has S3 asked, in an environment that says where, and as whom.
func (l *lane) aws(s *situation, d draw.Draw, f front) {
	_, port, _ := strings.Cut(f.http, ":")
	if d.Odds(2) {
		s.Env[d.One("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")] = "http://" + f.http
	} else {
		d.AWS(&s.Environment, "http://"+f.http, "http://localhost:"+port, "https://"+f.https, "http://"+f.http+"/pre/fix")
		d.Set(s.Environment, 2, "AWS_CA_BUNDLE", l.ca, l.ca, l.objects.ca, filepath.Join(l.dir, "none.pem"))
		d.Set(s.Environment, 6, "MLFLOW_S3_IGNORE_TLS", "true", "false")
	}
	if d.IntN(4) > 0 || s.Files[".aws/credentials"] == "" {
		s.Env["AWS_ACCESS_KEY_ID"], s.Env["AWS_SECRET_ACCESS_KEY"] = "AKIDEXAMPLE", "s3cret"
		d.Set(s.Environment, 4, "AWS_SESSION_TOKEN", "session", "")
	}
}

// uri is a URI of the run, its model, or its directory in the bucket, with a path that
// a key has or nearly has.
func (r bucketRun) uri(d draw.Draw, keys map[string]string) string {
	all := slices.Sorted(maps.Keys(keys))
	p, _ := strings.CutPrefix(all[d.IntN(len(all))], keyOf(r.root))
	parts := strings.Split(strings.Trim(p, "/"), "/")
	p = path.Join(parts[:1+d.IntN(len(parts))]...)
	p = d.One(p, p, p, p, p+"/", "none", "", p+"/none", strings.Join(parts, "/"))
	switch d.IntN(4) {
	case 0, 1:
		return strings.TrimSuffix("runs:/"+r.run+"/"+p, d.One("", "/"))
	case 2:
		return strings.TrimSuffix("models:/"+r.model+d.One("/1", "/latest", "@latest")+"/"+strings.TrimPrefix(p, "model/"), d.One("", "/"))
	}
	return strings.TrimSuffix(strings.TrimSuffix(r.root, "/")+"/"+p, d.One("", "/"))
}
