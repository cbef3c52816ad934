package test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/fault"
)

// planted are secrets that are to be found nowhere: a password in the tracking
// URI, a key of an object store, and what a presigned URL is signed with.
const planted = "s3cret-plant"

// TestSecretsAreFoundNowhere fails when a secret is in a log line, metric, error,
// process list, mount table, extended attribute or cache file, or when a file of
// the cache can be read by others.
func TestSecretsAreFoundNowhere(t *testing.T) {
	t.Parallel()
	r := newS3Run(t)
	run, store := r.id, r.store
	r.put(t, "f", fileOf(t, 3<<20))
	p := proxyTo(t, r.server.url())
	var signatures atomic.Value // that the server gave
	signatures.Store("")
	var failing atomic.Bool
	store.Break(func(w http.ResponseWriter, r *http.Request) bool {
		if sig := fault.Signature(r); sig != "" && !fault.OfServer(r) {
			signatures.Store(signatures.Load().(string) + " " + sig)
		}
		if failing.Load() {
			w.WriteHeader(500)
			return true
		}
		return false
	}, nil)
	cached := t.TempDir()
	uri := strings.Replace(p.URL, "://", "://me:"+planted+"-1@", 1)
	env := append([]string{"MLFLOWFS_CACHE_DIR=" + cached, "AWS_ACCESS_KEY_ID=" + planted + "-2", "AWS_SECRET_ACCESS_KEY=" + planted + "-3", "MLFLOW_S3_ENDPOINT_URL=http://" + store.Addr()}, fast...)
	m := mountAt(t, uri, env, "--log-level", "debug", "--metadata-ttl", "1s", "--metrics-addr", ":0")
	if _, err := read(m.path("runs", run, "f")); err != nil {
		t.Fatal(err)
	}
	failing.Store(true)
	output("ls", m.path("runs", "00000000000000000000000000000000"))
	if out, err := mlflowfs(t, env, "evict", "--tracking-uri", uri, "runs:/"+run+"/f").CombinedOutput(); bytes.Contains(out, []byte(planted)) {
		t.Errorf("evict says %s, %v", out, err)
	}
	output("cat", m.path("runs", run, "f")) // may fail, with a word of why
	failing.Store(false)

	look := func(where string, b []byte) {
		t.Helper()
		for _, secret := range append([]string{planted}, strings.Fields(signatures.Load().(string))...) {
			if at := bytes.Index(b, []byte(secret)); at >= 0 {
				t.Errorf("%s: …%q", where, b[max(at-100, 0):min(at+len(secret)+20, len(b))])
			}
		}
	}
	if len(strings.Fields(signatures.Load().(string))) == 0 {
		t.Error("nothing was signed: nothing was tested")
	}
	for _, pid := range []int{m.cmd.Process.Pid, m.daemon()} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || len(b) == 0 {
			t.Error(err)
		}
		look("ps", b)
	}
	mounts, _ := os.ReadFile("/proc/mounts")
	look("the mount table", mounts)
	look("the log", []byte(m.log.String()))
	for _, name := range []string{"status.json", "metrics"} {
		b, err := read(m.path(".mlflowfs", name))
		if err != nil {
			t.Error(err)
		}
		look(name, b)
	}
	for _, args := range [][]string{{"list"}, {"status", m.dir}, {"resolve", "--tracking-uri", uri, "runs:/" + run + "/f"}} {
		out, _ := mlflowfs(t, env, args...).CombinedOutput()
		look(args[0], out)
	}
	attrs, err := exec.Command("python3", "-c", `
import os, sys
for d, _, files in os.walk(sys.argv[1]):
    for f in files:
        p = os.path.join(d, f)
        try:
            for n in os.listxattr(p):
                print(n, os.getxattr(p, n))
        except OSError:
            pass
`, m.path("runs", run)).CombinedOutput()
	if err != nil {
		t.Error(string(attrs), err)
	}
	look("xattrs", attrs)
	m.stop()
	look("the log of the end", []byte(m.log.String()))
	files := 0
	filepath.WalkDir(cached, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		files++
		look(p, []byte(p))
		b, err := os.ReadFile(p)
		look(p, b)
		if st, serr := e.Info(); serr != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", p, st.Mode(), serr)
		}
		return err
	})
	if files < 3 {
		t.Errorf("%d files in the cache: nothing was tested", files)
	}
}

// TestRotatedStoreCredentialsAreTaken fails when an object store's credentials
// that are replaced in their file are not taken when the store refuses the old
// ones.
func TestRotatedStoreCredentialsAreTaken(t *testing.T) {
	t.Parallel()
	o, store := theObjects(t), s3Proxy(t)
	home := t.TempDir()
	file := filepath.Join(home, "credentials")
	write := func(key, secret string) {
		t.Helper()
		b := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", key, secret)
		if err := os.WriteFile(file, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("AK"+planted, "SK"+planted) // the store knows no such key
	for i := range 4 {
		o.put(t, "s3", fmt.Sprintf("rotated/%d", i), fileOf(t, 3<<20))
	}
	env := append([]string{"AWS_SHARED_CREDENTIALS_FILE=" + file, "AWS_REGION=us-east-1", "MLFLOW_S3_ENDPOINT_URL=http://" + store.Addr()}, fast...)
	m := mountAt(t, shared.get(t, "server 3.17").uri, env, "--mount-uris", "s3://"+bucket+"/rotated", "--metadata-ttl", "1s", "--log-level", "debug")
	at := func(i int) string { return m.path("uri", "s3", bucket, "rotated", fmt.Sprint(i)) }
	if _, err := read(at(0)); err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("a key that the store does not know: %v", err)
	}
	write(s3Key, s3Secret)
	waitFor(t, "the new credentials are not taken", 10*time.Second, func() bool {
		b, err := read(at(0))
		return err == nil && len(b) == 3<<20
	})
	// Those of the process are good until the store says otherwise, whatever the
	// file holds by then; who has a file open reads on when they are replaced.
	f, err := os.Open(at(1))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write("AK"+planted, "SK"+planted)
	if b, err := read(at(1)); err != nil || len(b) != 3<<20 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	revoked := time.Now()
	store.Break(func(w http.ResponseWriter, r *http.Request) bool {
		if fault.OfServer(r) || time.Since(revoked) > 2*time.Second {
			return false
		}
		http.Error(w, `<Error><Code>InvalidAccessKeyId</Code><Message>The key is no more.</Message></Error>`, http.StatusForbidden)
		return true
	}, nil)
	read(at(2))
	write(s3Key, s3Secret)
	waitFor(t, "the credentials are not taken again", 15*time.Second, func() bool {
		b, err := read(at(3))
		return err == nil && len(b) == 3<<20
	})
	for _, secret := range []string{"SK" + planted, s3Secret} {
		if strings.Contains(m.log.String(), secret) {
			t.Error("a secret is in the log")
		}
	}
}
