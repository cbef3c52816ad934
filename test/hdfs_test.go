package test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// hdfs is a cluster of Apache's HDFS: a name node and a data node. MLflow's own client
// reads one through a library that is in none of the packages that are installed here.
type hdfs struct {
	t    *testing.T
	dir  string // with conf, its configuration
	name string // host:port of the name node
	web  string // host:port of its HTTP
	data string // host:port of the data node's HTTP
	log  *count.Log
	jobs map[string]*exec.Cmd
	krb  *kdc // nil: whoever asks says who he is
}

const nameNode, dataNode = "namenode.NameNode", "datanode.DataNode"

func startHDFS(t *testing.T) *hdfs {
	t.Helper()
	h := newHDFS(t)
	h.up(nil, nil)
	return h
}

func newHDFS(t *testing.T) *hdfs {
	return &hdfs{t: t, dir: t.TempDir(), log: &count.Log{}, jobs: map[string]*exec.Cmd{}, name: localPort(t), web: localPort(t), data: localPort(t)}
}

func localPort(t *testing.T) string {
	t.Helper()
	n, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("localhost:", n)
}

// up starts the cluster, with more of a configuration than it needs.
func (h *hdfs) up(core, site map[string]string) {
	t := h.t
	t.Helper()
	coreSite := map[string]string{"fs.defaultFS": "hdfs://" + h.name}
	maps.Copy(coreSite, core)
	hdfsSite := map[string]string{
		"dfs.namenode.name.dir": "file://" + h.dir + "/names", "dfs.datanode.data.dir": "file://" + h.dir + "/data", "dfs.replication": "1",
		"dfs.namenode.http-address": h.web, "dfs.datanode.address": localPort(t), "dfs.datanode.ipc.address": localPort(t), "dfs.datanode.http.address": h.data,
		"dfs.namenode.safemode.extension": "0", "dfs.blocksize": "8388608", "dfs.permissions.superusergroup": "none",
	}
	maps.Copy(hdfsSite, site)
	_, err := os.Stat(h.dir + "/conf")
	h.configure("conf", coreSite, hdfsSite)
	if err != nil {
		h.format()
	}
	h.start(nameNode)
	h.start(dataNode)
	waitFor(t, "HDFS does not come up: "+tail(h.log.String()), time.Minute, func() bool { return h.shell("-touchz", "/up") == nil })
}

func (h *hdfs) format() {
	t := h.t
	t.Helper()
	if out, err := h.java("org.apache.hadoop.hdfs.server."+nameNode, "-format", "-nonInteractive").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, tail(string(out)))
	}
	t.Cleanup(func() {
		for node := range h.jobs {
			h.stop(node)
		}
	})
}

// configure writes a directory of Hadoop's configuration.
func (h *hdfs) configure(name string, core, site map[string]string) string {
	h.t.Helper()
	dir := filepath.Join(h.dir, name)
	for file, values := range map[string]map[string]string{"core-site.xml": core, "hdfs-site.xml": site} {
		text := "<configuration>\n"
		for k, v := range values {
			text += "<property><name>" + k + "</name><value>" + v + "</value></property>\n"
		}
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, file), []byte(text+"</configuration>\n"), 0o644)); err != nil {
			h.t.Fatal(err)
		}
	}
	return dir
}

func (h *hdfs) java(class string, args ...string) *exec.Cmd {
	path := h.dir + "/conf:" + filepath.Join(testenv(), "hadoop", "lib", "*")
	flags := []string{"-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-Dsun.jnu.encoding=UTF-8", "-cp", path}
	env := []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "HADOOP_USER_NAME=hadoop", "HOME=" + h.dir}
	if h.krb != nil {
		flags = append(flags, "-Djava.security.krb5.conf="+h.krb.conf)
		env = append(env, "KRB5CCNAME="+h.krb.own)
	}
	c := exec.Command("java", slices.Concat(flags, []string{class}, args)...)
	c.Env = env
	return c
}

// start starts a node. One of more data nodes than one is started with what differs.
func (h *hdfs) start(node string, args ...string) {
	h.t.Helper()
	c := h.java("org.apache.hadoop.hdfs.server."+node, args...)
	c.Stdout, c.Stderr = h.log, h.log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.jobs[strings.Join(append([]string{node}, args...), " ")] = c
}

func (h *hdfs) stop(node string) {
	if c := h.jobs[node]; c != nil {
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		c.Wait()
		h.jobs[node] = nil
	}
}

// shell runs a command of Hadoop's shell.
func (h *hdfs) shell(args ...string) error {
	if out, err := h.java("org.apache.hadoop.fs.FsShell", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// replacedAndRestarted has the file big of tree, which a mount shows at at with content,
// replaced below an open handle, and each node restarted: one content alone is read, and what
// is there now is shown. comesUp waits for what else is to be up.
func (h *hdfs) replacedAndRestarted(t *testing.T, at, tree string, content []byte, comesUp func()) {
	t.Helper()
	f, err := os.Open(at + "/big")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Read(make([]byte, 1000)); err != nil {
		t.Error(err)
	}
	other := filepath.Join(h.dir, "other")
	writeOld(t, other, bytes.Repeat([]byte{'b'}, len(content)))
	h.must("-put", "-f", other, "/tree/big")
	bytesOfOne(t, f, content)
	waitFor(t, "a file that was replaced is not shown", 10*time.Second, func() bool {
		b, err := read(at + "/big")
		return err == nil && len(b) == len(content) && b[0] == 'b' && b[len(b)-1] == 'b'
	})
	for _, node := range []string{dataNode, nameNode} {
		h.must("-put", "-f", tree+"/big", "/tree/big")
		h.stop(node)
		time.AfterFunc(100*time.Millisecond, func() { read(at + "/big") }) // an error, or the bytes
		time.Sleep(time.Second)
		h.start(node)
		waitFor(t, "HDFS does not come up again: "+tail(h.log.String()), time.Minute, func() bool { return h.shell("-cat", "/tree/big") == nil })
		comesUp()
		waitFor(t, "a cluster whose "+node+" was restarted is not read", 5*time.Second, func() bool {
			b, err := read(at + "/big")
			return err == nil && bytes.Equal(b, content)
		})
	}
}

func (h *hdfs) must(args ...string) {
	h.t.Helper()
	if err := h.shell(args...); err != nil {
		h.t.Fatal(err)
	}
}

// TestHDFSIsReadAsItLies fails when a directory of a cluster, by whatever name of its, is
// not what lies there; when what is not there, or is another user's, is another error than
// that; when a file that is replaced gives bytes of both versions; or when a cluster whose
// nodes were restarted is not read within 5 s.
func TestHDFSIsReadAsItLies(t *testing.T) {
	t.Parallel()
	h := startHDFS(t)
	tree := filepath.Join(h.dir, "tree")
	for _, name := range []string{"h#ash", "p%41c", "sp ace", "q?mark", "ü/deep/er", "plus+"} {
		writeOld(t, filepath.Join(tree, name), []byte("this is "+name))
	}
	writeOld(t, filepath.Join(tree, "empty"), nil)
	content := fileBytes(t, 20<<20+17)
	writeOld(t, filepath.Join(tree, "big"), content)
	for i := range 1100 { // a listing has a thousand
		writeOld(t, filepath.Join(tree, "many", fmt.Sprint(i)), nil)
	}
	h.must("-put", tree, "/tree")
	h.must("-cp", "/tree/big", "/secret")
	h.must("-chmod", "600", "/secret")

	env := append([]string{"MLFLOW_TRACKING_URI=" + stranger(t, nil, nil, "").URL}, fast...)
	dst := t.TempDir()
	uri := "hdfs://" + h.name
	if _, err := command(t, env, "download", "--quiet", "--dst", dst, uri+"/tree"); err != nil {
		t.Error(err)
	}
	differ(t, "downloaded", dst+"/tree", tree)
	ha := h.configure("ha", map[string]string{"fs.defaultFS": "hdfs://Cluster"}, map[string]string{
		"dfs.nameservices": "Cluster", "dfs.ha.namenodes.Cluster": "one,two",
		"dfs.namenode.rpc-address.Cluster.one": "127.0.0.1:1", "dfs.namenode.rpc-address.Cluster.two": h.name,
	})
	for _, c := range []struct {
		conf, uri, user string
		exit            int
	}{
		{"", uri + "/tree/big", "", 0}, {h.dir + "/conf", "hdfs:/tree/big", "", 0}, {h.dir + "/conf", "hdfs:///tree/big", "", 0},
		{ha, "hdfs://cluster/tree/big", "", 0}, {ha, "hdfs:///tree/big", "", 0},
		{"", uri + "/none", "", 3}, {"", uri + "/secret", "other", 4}, {"", uri + "/secret", "hadoop", 0}, {"", "hdfs:///tree/big", "", 1},
	} {
		out, err := command(t, append(env, "HADOOP_CONF_DIR="+c.conf, "HADOOP_USER_NAME="+c.user), "cat", c.uri)
		if exitOf(err) != c.exit || c.exit == 0 && !bytes.Equal(out, content) {
			t.Errorf("%+v: %d bytes, %v", c, len(out), err)
		}
	}

	m := mountRaced(t, stranger(t, nil, nil, "").URL, fast, "--mount-uris", uri+"/tree", "--metadata-ttl", "1s", "--timeout", "3s", "--stale-if-error", "0s")
	at := m.path("uri", "hdfs", h.name, "tree")
	differ(t, "mounted", at, tree)
	h.replacedAndRestarted(t, at, tree, content, func() {})
	if strings.Contains(m.log.String(), "DATA RACE") {
		t.Error(m.log)
	}
}
