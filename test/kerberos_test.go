package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// kdc is MIT's Kerberos of the realm TEST, with a keytab of what a cluster of HDFS on
// localhost needs.
type kdc struct {
	t    *testing.T
	dir  string
	conf string // krb5.conf
	keys string // of nn/localhost and HTTP/localhost
	own  string // the ticket of nn/localhost, who is the cluster's superuser
}

// password is that of each user of a kdc.
const password = "of-a-user"

func startKDC(t *testing.T, users ...string) *kdc {
	t.Helper()
	dir := t.TempDir()
	k := &kdc{t, dir, filepath.Join(dir, "krb5.conf"), filepath.Join(dir, "keytab"), filepath.Join(dir, "own")}
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	krb5 := fmt.Sprintf("[libdefaults]\n default_realm = TEST\n dns_lookup_kdc = false\n dns_lookup_realm = false\n udp_preference_limit = 1\n rdns = false\n[realms]\n TEST = {\n  kdc = 127.0.0.1:%d\n }\n", port)
	kdc := fmt.Sprintf("[kdcdefaults]\n kdc_listen = \"\"\n kdc_tcp_listen = 127.0.0.1:%d\n[realms]\n TEST = {\n  database_name = %s/principal\n  key_stash_file = %[2]s/stash\n  max_life = 1d\n }\n", port, dir)
	if err := errors.Join(os.WriteFile(k.conf, []byte(krb5), 0o644), os.WriteFile(dir+"/kdc.conf", []byte(kdc), 0o644)); err != nil {
		t.Fatal(err)
	}
	k.must("/usr/sbin/kdb5_util", "create", "-s", "-r", "TEST", "-P", "master")
	for _, user := range users {
		k.must("/usr/sbin/kadmin.local", "-q", "addprinc -pw "+password+" "+user)
	}
	for _, service := range []string{"nn/localhost", "HTTP/localhost"} {
		k.must("/usr/sbin/kadmin.local", "-q", "addprinc -randkey "+service)
		k.must("/usr/sbin/kadmin.local", "-q", "ktadd -k "+k.keys+" "+service)
	}
	log := &count.Log{}
	c := k.command("/usr/sbin/krb5kdc", "-n")
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(-c.Process.Pid, syscall.SIGKILL); c.Wait() })
	waitFor(t, "the KDC does not come up: "+tail(log.String()), 20*time.Second, func() bool {
		return k.command("kinit", "-k", "-t", k.keys, "-c", k.own, "nn/localhost").Run() == nil
	})
	return k
}

func (k *kdc) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "KRB5_CONFIG=" + k.conf, "KRB5_KDC_PROFILE=" + k.dir + "/kdc.conf"}
	return c
}

func (k *kdc) must(name string, args ...string) {
	k.t.Helper()
	if out, err := k.command(name, args...).CombinedOutput(); err != nil {
		k.t.Fatalf("%s: %v\n%s", name, err, tail(string(out)))
	}
}

// kinit has a user's ticket in a file.
func (k *kdc) kinit(user, file, life string) {
	k.t.Helper()
	c := k.command("kinit", "-l", life, "-c", file, user)
	c.Stdin = strings.NewReader(password + "\n")
	if out, err := c.CombinedOutput(); err != nil {
		k.t.Fatalf("%v: %s", err, out)
	}
}

// startKerberosHDFS starts a cluster that knows its users by Kerberos.
func startKerberosHDFS(t *testing.T, protection string, users ...string) *hdfs {
	t.Helper()
	h := newHDFS(t)
	h.krb = startKDC(t, users...)
	h.up(h.kerberos(protection))
	return h
}

// kerberos is the configuration of such a cluster, which speaks as protection says:
// authentication, integrity or privacy.
func (h *hdfs) kerberos(protection string) (core, site map[string]string) {
	return map[string]string{
			"hadoop.security.authentication": "kerberos", "hadoop.security.authorization": "true", "hadoop.rpc.protection": protection,
			"hadoop.http.authentication.type": "kerberos", "hadoop.http.authentication.kerberos.principal": "HTTP/_HOST@TEST", "hadoop.http.authentication.kerberos.keytab": h.krb.keys,
		}, map[string]string{
			"dfs.namenode.kerberos.principal": "nn/_HOST@TEST", "dfs.namenode.keytab.file": h.krb.keys,
			"dfs.datanode.kerberos.principal": "nn/_HOST@TEST", "dfs.datanode.keytab.file": h.krb.keys,
			"dfs.web.authentication.kerberos.principal": "HTTP/_HOST@TEST", "dfs.web.authentication.kerberos.keytab": h.krb.keys,
			"dfs.block.access.token.enable": "true", "ignore.secure.ports.for.testing": "true", "dfs.data.transfer.protection": protection,
			"dfs.encrypt.data.transfer.cipher.suites": "AES/CTR/NoPadding",
		}
}

// TestHDFSWithKerberosIsRead fails when a cluster that knows its users by Kerberos is not
// read with a user's ticket, by HTTP or, at each protection of what is sent that can be, by its
// own protocol, or is read by who may not;
// when a ticket that is over does not say so and how to get another; or when a new one is
// not found by a mount that stands.
func TestHDFSWithKerberosIsRead(t *testing.T) {
	t.Parallel()
	h := startKerberosHDFS(t, "authentication", "alice", "bob")
	content := fileBytes(t, 20<<20+17)
	big := filepath.Join(h.dir, "big")
	writeOld(t, big, content)
	h.must("-put", big, "/big")
	h.must("-cp", "/big", "/secret")
	h.must("-chown", "alice", "/secret")
	h.must("-chmod", "600", "/secret")
	alice, bob, over := filepath.Join(h.dir, "alice"), filepath.Join(h.dir, "bob"), filepath.Join(h.dir, "over")
	h.krb.kinit("alice", alice, "1h")
	h.krb.kinit("bob", bob, "1h")
	h.krb.kinit("alice", over, "1s")
	server := stranger(t, nil, nil, "").URL
	env := append([]string{"MLFLOW_TRACKING_URI=" + server, "KRB5_CONFIG=" + h.krb.conf, "HADOOP_CONF_DIR=" + h.dir + "/conf"}, fast...)
	for _, protection := range []string{"authentication", "integrity", "privacy"} {
		if protection != "authentication" {
			h.stop(dataNode)
			h.stop(nameNode)
			h.up(h.kerberos(protection))
		}
		good := 0
		if protection == "integrity" {
			good = 1 // with the sentence that says so
		}
		for _, c := range []struct {
			path, ticket string
			exit         int
			says         string
		}{
			{"/big", alice, good, "webhdfs"}, {"/secret", "FILE:" + alice, good, "webhdfs"}, {"/secret", bob, 4, ""}, {"/none", bob, 3, ""},
			{"/big", over, 4, "kinit"}, {"/big", h.dir + "/none", 4, "kinit"},
		} {
			out, err := command(t, append(env, "KRB5CCNAME="+c.ticket), "cat", "hdfs://"+h.name+c.path)
			if exitOf(err) != c.exit || c.exit == 0 && !bytes.Equal(out, content) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %+v: %d bytes, %v", protection, c, len(out), err)
			}
			if protection != "integrity" {
				continue
			}
			out, err = command(t, append(env, "KRB5CCNAME="+c.ticket, "MLFLOWFS_ALLOW_ADDRESS="+h.data), "cat", "webhdfs://"+h.web+c.path)
			if c.ticket == alice || c.ticket == "FILE:"+alice {
				c.exit = 0
			}
			if exitOf(err) != c.exit || c.exit == 0 && !bytes.Equal(out, content) || err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "delegation")) {
				t.Errorf("by HTTP: %+v: %d bytes, %v", c, len(out), err)
			}
		}
	}

	m := mountRaced(t, server, append(env, "KRB5CCNAME="+over), "--mount-uris", "hdfs://"+h.name+"/", "--metadata-ttl", "1s", "--timeout", "3s", "--stale-if-error", "0s")
	at := m.path("uri", "hdfs", h.name, "secret")
	if _, err := read(at); err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Error("a ticket that is over:", err)
	}
	h.krb.kinit("alice", over, "1h")
	waitFor(t, "a new ticket is not found", 20*time.Second, func() bool {
		b, err := read(at)
		return err == nil && bytes.Equal(b, content)
	})
	if strings.Contains(m.log.String(), "DATA RACE") {
		t.Error(m.log)
	}
}
