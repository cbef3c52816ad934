package hdfs

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/colinmarc/hdfs/v2/hadoopconf"
	"go.uber.org/goleak"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func driver(env map[string]string) Driver {
	return Driver{Settings: rest.Settings{Silence: 200 * time.Millisecond}, Env: func(k string) string { return env[k] }, User: "me", Log: slog.New(slog.DiscardHandler)}
}

// list asks a cluster for its root.
func list(t *testing.T, d Driver, authority string) error {
	t.Helper()
	h, err := d.Open(authority)
	if err != nil {
		return err
	}
	defer h.Close()
	_, err = h.Dir(artifact.RemoteOptions{URI: "hdfs://x", Root: "/", Log: d.Log}).List(t.Context(), "")
	return err
}

// TestNameNodesAreThoseOfTheConfiguration fails when a URI leads to other name nodes than
// for Hadoop's own client, or when one that leads nowhere does not say why.
func TestNameNodesAreThoseOfTheConfiguration(t *testing.T) {
	t.Parallel()
	ha := hadoopconf.HadoopConf{
		"fs.defaultFS": "hdfs://Prod/", "dfs.ha.namenodes.Prod": "a, b", "dfs.namenode.rpc-address.Prod.a": "one:8020", "dfs.namenode.rpc-address.Prod.b": "two:8020",
		"dfs.ha.namenodes.other": "a", "dfs.namenode.rpc-address.other.a": "three:9000",
	}
	for _, c := range []struct {
		conf      hadoopconf.HadoopConf
		authority string
		want      string
	}{
		{ha, "", "one:8020 two:8020"}, {ha, "prod", "one:8020 two:8020"}, {ha, "Other", "three:9000"}, {ha, "host", "host:8020"}, {ha, "prod:1", "prod:1"}, {ha, "u@host:9000", "host:9000"},
		{hadoopconf.HadoopConf{"fs.default.name": "hdfs://old:9000"}, "", "old:9000"}, {nil, "h", "h:8020"}, {nil, "[::1]:9", "[::1]:9"},
		{nil, "", ""}, {hadoopconf.HadoopConf{"fs.defaultFS": "s3a://bucket"}, "", ""}, {hadoopconf.HadoopConf{"fs.defaultFS": "hdfs:///"}, "", ""},
	} {
		a, err := artifact.ParseAuthority(c.authority)
		if err != nil {
			t.Fatal(err)
		}
		got, err := nameNodes(c.conf, a)
		slices.Sort(got)
		if strings.Join(got, " ") != c.want || (err == nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), "HADOOP_CONF_DIR") {
			t.Errorf("%v %q: %q, %v", c.conf, c.authority, got, err)
		}
	}
}

// TestKerberosIsWantedByTheConfiguration fails when a cluster that wants a ticket is asked
// without one, or when what is said does not tell how to get one.
func TestKerberosIsWantedByTheConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "ticket")
	text := `<configuration><property><name>hadoop.security.authentication</name><value>kerberos</value></property></configuration>`
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "core-site.xml"), []byte(text), 0o600), os.WriteFile(bad, []byte("no ticket"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for cache, says := range map[string]string{dir + "/none": "kinit", "FILE:" + dir + "/none": dir + "/none", bad: "kinit", "KEYRING:persistent:0": "MLFLOW_KERBEROS_TICKET_CACHE"} {
		for _, variable := range []string{"MLFLOW_KERBEROS_TICKET_CACHE", "KRB5CCNAME"} {
			err := list(t, driver(map[string]string{"HADOOP_CONF_DIR": dir, variable: cache}), "127.0.0.1:1")
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), says) {
				t.Errorf("%s=%s: %v", variable, cache, err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "core-site.xml"), []byte("<configuration><"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := list(t, driver(map[string]string{"HADOOP_CONF_DIR": dir}), "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), dir) {
		t.Error("a configuration that can't be read:", err)
	}
}

// TestSilentNameNodeIsLeft fails when a name node that answers nothing is waited for longer
// than the settings say, or when one is asked although the network is not to be used.
func TestSilentNameNodeIsLeft(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	err = list(t, driver(nil), l.Addr().String())
	var to interface{ Timeout() bool }
	if !errors.As(err, &to) || !to.Timeout() || time.Since(began) > 5*time.Second {
		t.Errorf("%v, after %v", err, time.Since(began))
	}
	offline := driver(nil)
	offline.Settings.Offline = true
	if err := list(t, offline, l.Addr().String()); err == nil || !strings.Contains(err.Error(), "--offline") {
		t.Error(err)
	}
	if _, err := driver(nil).Open("u:pw@h"); err == nil || strings.Contains(err.Error(), "pw") {
		t.Error(err)
	}
}
