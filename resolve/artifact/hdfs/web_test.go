package hdfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

// fakeNode is a node of WebHDFS for what real ones do not do.
type fakeNode struct {
	*httptest.Server
	asked atomic.Int64
}

// answer is what a node says to an operation.
type answer func(w http.ResponseWriter, r *http.Request)

func newFakeNode(t *testing.T, ops map[string]answer) *fakeNode {
	t.Helper()
	n := &fakeNode{}
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.asked.Add(1)
		if f := ops[r.URL.Query().Get("op")]; f != nil {
			f(w, r)
			return
		}
		w.WriteHeader(http.StatusBadRequest)
	}))
	t.Cleanup(n.Close)
	return n
}

func (n *fakeNode) host() string { return strings.TrimPrefix(n.URL, "http://") }

func status(id int64) answer {
	return func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"FileStatus":{"fileId":%d,"length":8,"modificationTime":1000,"pathSuffix":"","type":"FILE"}}`, id)
	}
}

func says(code int, exception string) answer {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"RemoteException":{"exception":%q,"message":"words"}}`, exception)
	}
}

func sends(text string) answer {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

func leads(to func(r *http.Request) string) answer {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", to(r))
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

const token = "SECRET-TOKEN"

// to leads to the same question at another node, with a token.
func to(base string) func(r *http.Request) string {
	return func(r *http.Request) string { return base + r.URL.EscapedPath() + "?op=OPEN&delegation=" + token }
}

// webStore is the store of /d of a cluster whose name nodes these are.
func webStore(t *testing.T, env map[string]string, nodes ...string) artifact.Store {
	t.Helper()
	env["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "1"
	c := &webCluster{d: driver(env), scheme: "http"}
	c.d.Settings.Backoff = time.Millisecond
	c.d.Settings.Retries = 2
	if _, _, err := c.nodes(); err != nil {
		t.Fatal(err)
	}
	c.made.names = nil
	for _, n := range nodes {
		c.made.names = append(c.made.names, &url.URL{Scheme: "http", Host: n})
		c.made.client.Reach().Name("http://" + n)
	}
	t.Cleanup(func() { c.Close() })
	return c.Dir(artifact.RemoteOptions{URI: "webhdfs://x/d", ID: "x", Root: "/d", Log: c.d.Log})
}

func readWeb(t *testing.T, s artifact.Store, validator string) (string, error) {
	t.Helper()
	body, err := s.ReadRange(t.Context(), "f", 0, 8, validator)
	if err != nil {
		return "", err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return string(b), err
}

// TestNameNodeLeadsToADataNodeAlone fails when a name node's redirect is followed to where
// no setting leads, to another question, or with the user's credentials; or when the token
// in it is told in an error.
func TestNameNodeLeadsToADataNodeAlone(t *testing.T) {
	t.Parallel()
	data := newFakeNode(t, map[string]answer{"OPEN": func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.URL.Query().Get("user.name") != "" {
			t.Error("a data node gets the user's name", r.Header)
		}
		io.WriteString(w, "the file")
	}})
	for name, c := range map[string]struct {
		to      func(r *http.Request) string
		allowed bool
		good    bool
	}{
		"a data node": {to(data.URL), true, true},
		"no setting":  {to(data.URL), false, false},
		"other path":  {func(*http.Request) string { return data.URL + "/webhdfs/v1/d/g?op=OPEN&delegation=" + token }, true, false},
		"no WebHDFS":  {func(*http.Request) string { return data.URL + "/latest/meta-data?op=OPEN&delegation=" + token }, true, false},
		"other op":    {func(r *http.Request) string { return data.URL + r.URL.Path + "?op=DELETE&delegation=" + token }, true, false},
		"no op":       {func(r *http.Request) string { return data.URL + r.URL.Path + "?delegation=" + token }, true, false},
		"a user":      {func(r *http.Request) string { return "http://u:" + token + "@" + data.host() + r.URL.Path + "?op=OPEN" }, true, false},
		"file":        {func(r *http.Request) string { return "file://" + r.URL.Path + "?op=OPEN&delegation=" + token }, true, false},
		"nowhere":     {func(*http.Request) string { return "http://%zz?" + token }, true, false},
		"itself":      {func(r *http.Request) string { return r.URL.String() + "&delegation=" + token }, true, false},
	} {
		names := newFakeNode(t, map[string]answer{"GETFILESTATUS": status(1), "OPEN": leads(c.to)})
		env := map[string]string{"HADOOP_USER_NAME": "me"}
		if c.allowed {
			env["MLFLOWFS_ALLOW_ADDRESS"] = data.host()
		}
		before := data.asked.Load()
		got, err := readWeb(t, webStore(t, env, names.host()), "")
		if c.good != (err == nil && got == "the file") || err != nil && strings.Contains(err.Error(), token) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if asked := data.asked.Load() - before; c.good != (asked > 0) {
			t.Errorf("%s: the other host was asked %d times: %v", name, asked, err)
		}
		if n := names.asked.Load(); n > 12 {
			t.Errorf("%s: the name node was asked %d times", name, n)
		}
	}
}

// TestWebFileGivesBytesOfOneVersion fails when bytes are given that are of another file
// than that which was listed, or when an answer that is too short or too long is taken.
func TestWebFileGivesBytesOfOneVersion(t *testing.T) {
	t.Parallel()
	const of = "1-1000-8"
	var calls atomic.Int64
	replaced := func(w http.ResponseWriter, r *http.Request) { status(min(calls.Add(1), 2))(w, r) }
	for name, c := range map[string]struct {
		ops       map[string]answer
		validator string
		want      error
	}{
		"as it is":         {map[string]answer{"GETFILESTATUS": status(1), "OPEN": sends("the file")}, of, nil},
		"replaced":         {map[string]answer{"GETFILESTATUS": status(2), "OPEN": sends("the file")}, of, cache.ErrChanged},
		"replaced as read": {map[string]answer{"GETFILESTATUS": replaced, "OPEN": sends("the file")}, "", cache.ErrChanged},
		"gone":             {map[string]answer{"GETFILESTATUS": says(404, "FileNotFoundException"), "OPEN": says(404, "FileNotFoundException")}, of, cache.ErrChanged},
		"shorter now":      {map[string]answer{"GETFILESTATUS": status(3), "OPEN": says(403, "IOException")}, of, cache.ErrChanged},
		"too short":        {map[string]answer{"GETFILESTATUS": status(1), "OPEN": sends("the")}, of, errAny},
		"too long":         {map[string]answer{"GETFILESTATUS": status(1), "OPEN": sends("the file and more")}, of, errAny},
		"nothing":          {map[string]answer{"GETFILESTATUS": status(1), "OPEN": sends("")}, of, errAny},
		"no right":         {map[string]answer{"GETFILESTATUS": status(1), "OPEN": says(403, "AccessControlException")}, of, fs.ErrPermission},
	} {
		got, err := readWeb(t, webStore(t, map[string]string{}, newFakeNode(t, c.ops).host()), c.validator)
		if c.want == nil != (err == nil && got == "the file") || c.want != nil && c.want != errAny && !errors.Is(err, c.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

var errAny = errors.New("any")

// TestWebAnswersAreBounded fails when a name node that lists without an end, sends what is
// no answer, or says that it is not active is asked for ever, or shown as a directory that
// is not there or another user's.
func TestWebAnswersAreBounded(t *testing.T) {
	t.Parallel()
	page := func(name string, left int) answer {
		return sends(fmt.Sprintf(`{"DirectoryListing":{"partialListing":{"FileStatuses":{"FileStatus":[{"pathSuffix":%q,"type":"FILE","length":1}]}},"remainingEntries":%d}}`, name, left))
	}
	endless := func(w http.ResponseWriter, _ *http.Request) {
		for range 64 << 10 {
			if _, err := io.WriteString(w, strings.Repeat(" ", 1<<10)+`"x`); err != nil {
				return
			}
		}
	}
	for name, c := range map[string]struct {
		say  answer
		want error
		most int64
	}{
		"does not go on": {page("a", 1), nil, 2},
		"a file":         {page("", 0), fs.ErrNotExist, 1},
		"no JSON":        {sends("<html>"), nil, 1},
		"endless":        {endless, nil, 1},
		"a 404 of a web": {func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, nil, 1},
		"standby":        {says(403, "StandbyException"), nil, 3},
		"safe mode":      {says(403, "SafeModeException"), nil, 1},
		"not there":      {says(404, "FileNotFoundException"), fs.ErrNotExist, 1},
		"wants Kerberos": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, fs.ErrPermission, 1},
		"a redirect":     {leads(func(r *http.Request) string { return r.URL.String() }), nil, 1},
	} {
		n := newFakeNode(t, map[string]answer{"LISTSTATUS_BATCH": c.say})
		_, err := webStore(t, map[string]string{}, n.host()).List(t.Context(), "")
		if err == nil || c.want != nil && !errors.Is(err, c.want) || c.want == nil && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
			t.Errorf("%s: %v", name, err)
		}
		if asked := n.asked.Load(); asked > c.most {
			t.Errorf("%s: %d requests", name, asked)
		}
	}
}

// TestActiveNameNodeIsFound fails when a name node that is down, silent or not active keeps
// a cluster from being read, or is asked again each time; or a data node that is down from
// another being asked.
func TestActiveNameNodeIsFound(t *testing.T) {
	t.Parallel()
	silent := newFakeNode(t, map[string]answer{"GETFILESTATUS": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }})
	standby := newFakeNode(t, map[string]answer{"GETFILESTATUS": says(403, "StandbyException")})
	data := newFakeNode(t, map[string]answer{"OPEN": sends("the file")})
	active := newFakeNode(t, map[string]answer{"GETFILESTATUS": status(1), "OPEN": leads(func(r *http.Request) string {
		if r.URL.Query().Get("excludedatanodes") == "127.0.0.1:1" {
			return to(data.URL)(r)
		}
		return to("http://127.0.0.1:1")(r)
	})})
	s := webStore(t, map[string]string{"MLFLOWFS_ALLOW_ADDRESS": data.host() + ",127.0.0.1:1"}, "127.0.0.1:1", silent.host(), standby.host(), active.host())
	for range 3 {
		if got, err := readWeb(t, s, ""); err != nil || got != "the file" {
			t.Fatal(got, err)
		}
	}
	if silent.asked.Load() != 1 || standby.asked.Load() != 1 {
		t.Errorf("the silent one was asked %d times, the one on standby %d times", silent.asked.Load(), standby.asked.Load())
	}
}

// TestSilentWebNodeIsLeft fails when a mount waits for a node that is silent longer than
// for one request.
func TestSilentWebNodeIsLeft(t *testing.T) {
	t.Parallel()
	silent := newFakeNode(t, map[string]answer{"LISTSTATUS_BATCH": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }})
	s := webStore(t, map[string]string{}, silent.host())
	s.(*webDir).c.d.Settings.Whole = true
	began := time.Now()
	if _, err := s.List(t.Context(), ""); err == nil || silent.asked.Load() != 1 {
		t.Errorf("%d requests in %v, %v", silent.asked.Load(), time.Since(began), err)
	}
}

// TestWaysAreRead fails when --webhdfs is taken for what it does not say, or quotes a
// password.
func TestWaysAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "0", "hdfs://nn:8020=webhdfs://nn:9870": "1", " hdfs://NN=swebhdfs://g:1/ , hdfs://=webhdfs://h": "2",
		"nn=webhdfs://nn": "", "hdfs://nn=http://nn": "", "hdfs://nn": "", "hdfs://u:pw@nn=webhdfs://x": "", "hdfs://nn=webhdfs://u:pw@x": "", "hdfs://nn=webhdfs://": "", "hdfs://nn/a=webhdfs://x": "",
	} {
		ways, err := ReadWays(func(string) string { return text })
		got := ""
		if err == nil {
			got = fmt.Sprint(len(ways))
		}
		if got != want || err != nil && strings.Contains(err.Error(), "pw") {
			t.Errorf("%q: %v, %v", text, ways, err)
		}
	}
	h, err := driver(map[string]string{WaysVariable: "hdfs://nn:8020=swebhdfs://g:1"}).Open("NN:8020")
	if c, ok := h.(*webCluster); err != nil || !ok || c.scheme != "https" || c.at.Port != 1 {
		t.Error(h, err)
	}
}

// TestWebRangeIsAskedForBlockByBlock fails when a range that goes over the end of a file's
// block is taken from one answer, of which a data node may send a later block of a file
// that has come in the place of the first; or when a range within a block costs more than
// one request.
func TestWebRangeIsAskedForBlockByBlock(t *testing.T) {
	t.Parallel()
	const content = "aaabbbcc"
	var opens, id atomic.Int64
	node := newFakeNode(t, map[string]answer{
		"GETFILESTATUS": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"FileStatus":{"fileId":%d,"length":8,"blockSize":3,"modificationTime":1000,"pathSuffix":"","type":"FILE"}}`, id.Load())
		},
		"OPEN": func(w http.ResponseWriter, r *http.Request) {
			opens.Add(1)
			var off, n int
			fmt.Sscan(r.URL.Query().Get("offset"), &off)
			fmt.Sscan(r.URL.Query().Get("length"), &n)
			io.WriteString(w, content[off:off+n])
		},
	})
	s := webStore(t, map[string]string{}, node.host())
	for _, c := range []struct{ off, n, opens int64 }{{0, 8, 3}, {0, 3, 1}, {1, 2, 1}, {2, 2, 2}, {3, 5, 2}, {7, 1, 1}} {
		id.Store(1)
		opens.Store(0)
		body, err := s.ReadRange(t.Context(), "f", c.off, c.n, "1-1000-8")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		body.Close()
		if string(got) != content[c.off:c.off+c.n] || err != nil || opens.Load() != c.opens {
			t.Errorf("%d bytes from %d: %q, %v, by %d requests, want %d", c.n, c.off, got, err, opens.Load(), c.opens)
		}
	}
	body, err := s.ReadRange(t.Context(), "f", 0, 8, "1-1000-8")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	id.Store(2)
	if got, err := io.ReadAll(body); string(got) != "aaa" || !errors.Is(err, cache.ErrChanged) {
		t.Errorf("replaced behind its first block: %q, %v", got, err)
	}
}

// TestAnswerOfAnotherServiceIsAnError fails when an answer in JSON that is none of WebHDFS's,
// as a gateway's, shows an empty directory, or a file that is not there; or when a listing
// of nothing that is shown goes on for ever.
func TestAnswerOfAnotherServiceIsAnError(t *testing.T) {
	t.Parallel()
	for _, said := range []string{`{}`, `{"status":"ok"}`, `{"DirectoryListing":null,"FileStatus":null}`, `{"DirectoryListing":{"partialListing":{}},"FileStatus":{}}`} {
		s := webStore(t, map[string]string{}, newFakeNode(t, map[string]answer{"LISTSTATUS_BATCH": sends(said), "GETFILESTATUS": sends(said)}).host())
		if found, err := s.List(t.Context(), ""); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, %v", said, found, err)
		}
		if e, err := s.(*webDir).Stat(t.Context(), "f"); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, %v", said, e, err)
		}
	}
	var pages atomic.Int64
	const aPage = 100
	links := newFakeNode(t, map[string]answer{"LISTSTATUS_BATCH": func(w http.ResponseWriter, _ *http.Request) {
		page := pages.Add(1)
		io.WriteString(w, `{"DirectoryListing":{"remainingEntries":1,"partialListing":{"FileStatuses":{"FileStatus":[`)
		for i := range aPage {
			fmt.Fprintf(w, `{"pathSuffix":"%09d","type":"SYMLINK"},`, page*aPage+int64(i))
		}
		fmt.Fprintf(w, `{"pathSuffix":"%09d","type":"SYMLINK"}]}}}}`, (page+1)*aPage)
	}})
	s := webStore(t, map[string]string{}, links.host()).(*webDir)
	s.most = 1000
	if _, err := s.List(t.Context(), ""); err == nil || pages.Load() > int64(s.most/aPage+2) {
		t.Errorf("after %d pages: %v", pages.Load(), err)
	}
}

// TestGatewayWithoutNumbersIsNotTrusted fails when a file of a service that gives files no
// numbers, as HttpFS does, has a version that a replaced one may have, too.
func TestGatewayWithoutNumbersIsNotTrusted(t *testing.T) {
	t.Parallel()
	s := webStore(t, map[string]string{}, newFakeNode(t, map[string]answer{"GETFILESTATUS": status(0), "OPEN": sends("the file")}).host())
	e, err := s.(*webDir).Stat(t.Context(), "f")
	if err != nil || e.Version != "" {
		t.Errorf("%q, %v", e.Version, err)
	}
	body, err := s.ReadRange(t.Context(), "f", 0, 8, "")
	if err != nil || body.Validator != "" {
		t.Fatalf("%v, %v", body, err)
	}
	body.Close()
}
