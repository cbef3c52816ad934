package test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// webProxy stands before a name node's HTTP, and counts what it is asked by operation.
type webProxy struct {
	*httptest.Server
	mu    sync.Mutex
	asked map[string]int
}

func (p *webProxy) count(op string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[op]
}

func (p *webProxy) host() string { return strings.TrimPrefix(p.URL, "http://") }

// beforeWeb is a proxy of a name node's HTTP.
func beforeWeb(t *testing.T, to string) *webProxy {
	t.Helper()
	p := &webProxy{asked: map[string]int{}}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked[r.URL.Query().Get("op")]++
		p.mu.Unlock()
		req, err := http.NewRequest(r.Method, "http://"+to+r.URL.RequestURI(), nil)
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := c.Do(req)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		if l := resp.Header.Get("Location"); l != "" {
			w.Header().Set("Location", l)
		}
		w.WriteHeader(resp.StatusCode)
		buf := &bytes.Buffer{}
		buf.ReadFrom(resp.Body)
		w.Write(buf.Bytes())
	}))
	t.Cleanup(p.Close)
	return p
}

// TestWebHDFSIsReadAsItLies fails when a cluster of which only HTTP can be reached is not
// what lies there, by its own scheme or where a setting says so of its hdfs:// URI; when
// what is not there, or another user's, is another error than that; when a name node that
// is not active is not passed over; when data nodes are asked that no setting names; when a
// file that is replaced gives bytes of both versions; when a range costs more than its three
// requests; or when a cluster whose nodes were restarted is not read within 5 s.
func TestWebHDFSIsReadAsItLies(t *testing.T) {
	t.Parallel()
	h := startHDFS(t)
	tree := filepath.Join(h.dir, "tree")
	for _, name := range []string{"h#ash", "p%41c", "sp ace", "q?mark", "ü/deep/er", "plus+", "a;b=c&d", "100%"} {
		writeOld(t, filepath.Join(tree, name), []byte("this is "+name))
	}
	writeOld(t, filepath.Join(tree, "empty"), nil)
	content := fileBytes(t, 20<<20+17)
	writeOld(t, filepath.Join(tree, "big"), content)
	for i := range 1100 { // a page has a thousand
		writeOld(t, filepath.Join(tree, "many", fmt.Sprint(i)), nil)
	}
	h.must("-put", tree, "/tree")
	h.must("-cp", "/tree/big", "/secret")
	h.must("-chmod", "600", "/secret")

	web := beforeWeb(t, h.web)
	env := append([]string{"MLFLOW_TRACKING_URI=" + stranger(t, nil, nil, "").URL, "HADOOP_USER_NAME=hadoop", "MLFLOWFS_ALLOW_ADDRESS=" + h.data}, fast...)
	uri := "webhdfs://" + web.host()
	dst := t.TempDir()
	if _, err := command(t, env, "download", "--quiet", "--dst", dst, uri+"/tree"); err != nil {
		t.Error(err)
	}
	differ(t, "downloaded", dst+"/tree", tree)
	if n := web.count("LISTSTATUS_BATCH"); n > 8 {
		t.Errorf("%d listings of 4 directories, of which one has two pages", n)
	}
	standby := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"RemoteException":{"exception":"StandbyException","javaClassName":"org.apache.hadoop.ipc.StandbyException","message":"Operation category READ is not supported in state standby"}}`)
	}))
	defer standby.Close()
	ha := h.configure("ha", nil, map[string]string{
		"dfs.nameservices": "Cluster", "dfs.ha.namenodes.Cluster": "zero,one,two", "dfs.namenode.http-address.Cluster.zero": "localhost:1",
		"dfs.namenode.http-address.Cluster.one": strings.TrimPrefix(standby.URL, "http://"), "dfs.namenode.http-address.Cluster.two": web.host(),
	})
	for _, c := range []struct {
		uri  string
		env  []string
		exit int
	}{
		{uri + "/tree/big", nil, 0}, {"webhdfs://cluster/tree/big", []string{"HADOOP_CONF_DIR=" + ha}, 0},
		{"hdfs://nowhere:8020/tree/big", []string{"MLFLOWFS_WEBHDFS=hdfs://nowhere:8020=" + uri}, 0},
		{uri + "/none", nil, 3}, {uri + "/secret", []string{"HADOOP_USER_NAME=other"}, 4}, {uri + "/secret", nil, 0}, {"webhdfs://hadoop@" + web.host() + "/secret", []string{"HADOOP_USER_NAME=other"}, 0},
		{uri + "/tree/big", []string{"MLFLOWFS_ALLOW_ADDRESS="}, 4},
		{"swebhdfs://" + web.host() + "/tree/big", nil, 1},
	} {
		opened, asked := web.count("OPEN"), web.count("GETFILESTATUS")
		out, err := command(t, append(env, c.env...), "cat", c.uri)
		opened, asked = web.count("OPEN")-opened, web.count("GETFILESTATUS")-asked
		if opened > 40 || asked > opened+4 {
			t.Errorf("%s: %d ranges, and %d questions for the file", c.uri, opened, asked)
		}
		if exitOf(err) != c.exit || c.exit == 0 && !bytes.Equal(out, content) {
			t.Errorf("%+v: %d bytes, %v", c, len(out), err)
		}
	}

	m := mountRaced(t, stranger(t, nil, nil, "").URL, env, "--mount-uris", uri+"/tree", "--metadata-ttl", "1s", "--timeout", "3s", "--stale-if-error", "0s")
	at := m.path("uri", "webhdfs", web.host(), "tree")
	differ(t, "mounted", at, tree)
	h.replacedAndRestarted(t, at, tree, content, func() {
		waitFor(t, "the name node's HTTP does not come up again", time.Minute, func() bool { // its first answer takes seconds
			resp, err := http.Get("http://" + h.web + "/webhdfs/v1/?op=GETFILESTATUS&user.name=hadoop")
			if err == nil {
				resp.Body.Close()
			}
			return err == nil && resp.StatusCode == http.StatusOK
		})
	})
	if strings.Contains(m.log.String(), "DATA RACE") {
		t.Error(m.log)
	}
}

// TestFilesThatHadoopKeepsInItsOwnWay fails when a file of an encryption zone, or one that
// is erasure-coded, gives other bytes than Hadoop's own client gives: by HDFS's protocol
// one sentence says what they are and where they are read, by WebHDFS they are what was
// written.
func TestFilesThatHadoopKeepsInItsOwnWay(t *testing.T) {
	t.Parallel()
	h := newHDFS(t)
	keys := "jceks://file" + h.dir + "/keys.jceks"
	if out, err := h.java("org.apache.hadoop.crypto.key.KeyShell", "create", "key", "-provider", keys).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, tail(string(out)))
	}
	h.up(map[string]string{"hadoop.security.key.provider.path": keys}, nil)
	for i := range 2 { // a policy of two and one wants three
		dir := fmt.Sprint(h.dir, "/data", i)
		h.start(dataNode, "-Ddfs.datanode.data.dir=file://"+dir, "-Ddfs.datanode.address="+localPort(t), "-Ddfs.datanode.ipc.address="+localPort(t), "-Ddfs.datanode.http.address="+localPort(t))
	}
	admin := func(class string, args ...string) {
		t.Helper()
		if out, err := h.java(class, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, tail(string(out)))
		}
	}
	const ec, crypto = "org.apache.hadoop.hdfs.tools.ECAdmin", "org.apache.hadoop.hdfs.tools.CryptoAdmin"
	h.must("-mkdir", "/coded", "/zone")
	admin(crypto, "-createZone", "-keyName", "key", "-path", "/zone")
	admin(ec, "-enablePolicy", "-policy", "XOR-2-1-1024k")
	admin(ec, "-setPolicy", "-path", "/coded", "-policy", "XOR-2-1-1024k")
	content := fileBytes(t, 5<<20+17)
	big := filepath.Join(h.dir, "big")
	writeOld(t, big, content)
	waitFor(t, "the other data nodes do not come up", time.Minute, func() bool { return h.shell("-put", "-f", big, "/coded/big") == nil })
	h.must("-put", big, "/zone/big")
	env := append([]string{"MLFLOW_TRACKING_URI=" + stranger(t, nil, nil, "").URL, "HADOOP_USER_NAME=hadoop", "MLFLOWFS_ALLOW_ADDRESS=localhost"}, fast...)
	for path, says := range map[string]string{"/zone/big": "encryption zone", "/coded/big": "erasure-coded"} {
		out, err := command(t, env, "cat", "hdfs://"+h.name+path)
		if err == nil || len(out) > 0 || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "webhdfs") {
			t.Errorf("%s: %d bytes, %v", path, len(out), err)
		}
		if out, err = command(t, env, "cat", "webhdfs://"+h.web+path); err != nil || !bytes.Equal(out, content) {
			t.Errorf("%s by HTTP: %d bytes, %v", path, len(out), err)
		}
	}
}
