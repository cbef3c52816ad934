package test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
	"github.com/mlflowfs/mlflowfs/test/fault"
)

// TestDownloadResumes fails when a download that is killed leaves something under
// the final name, when it fetches again a piece that was there whole, or when it
// mixes two contents.
func TestDownloadResumes(t *testing.T) {
	t.Parallel()
	const size, part = 200<<20 + 5, 150 << 20 // in pieces of 16 MiB, eight at a time
	or, o := originAt(t, "s3"), theObjects(t)
	file := fileOf(t, size)
	// begun starts a download, and gives it as soon as a part has come and no more
	// does.
	begun := func(t *testing.T, name, dst string) (c *exec.Cmd, errs *bytes.Buffer, store *count.Origin, again func() ([]byte, error)) {
		t.Helper()
		key := "own/resume/" + name
		o.put(t, "s3", key, file)
		store = s3Proxy(t)
		env := join(s3Env(store.Addr()), fast, []string{"MLFLOW_TRACKING_URI=" + or.server.url()})
		args := []string{"download", "--dst", dst, "s3://" + bucket + "/" + key}
		quota := fault.NewQuota(part)
		t.Cleanup(quota.Open)
		store.Break(nil, func(r *http.Response) error {
			quota.Hold(r)
			return nil
		})
		c, errs = mlflowfs(t, env, args...), &bytes.Buffer{}
		c.Stderr = errs
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-quota.Spent():
		case <-time.After(time.Minute):
			t.Fatal("too little comes")
		}
		return c, errs, store, func() ([]byte, error) {
			store.Break(nil, nil)
			return command(t, env, args...)
		}
	}
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "interrupted": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dst := t.TempDir()
			final := filepath.Join(dst, name)
			c, errs, store, again := begun(t, name, dst)
			c.Process.Signal(sig)
			c.Wait()
			if _, err := os.Stat(final); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("half a file has the final name: %v", err)
			}
			if sig == syscall.SIGINT && (c.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), "goes on from here")) {
				t.Errorf("exit %d: %s", c.ProcessState.ExitCode(), errs)
			}
			_, before := store.Reset()
			out, err := again()
			if err != nil || strings.TrimSpace(string(out)) != final || sumOf(t, final) != sumOf(t, file) {
				t.Errorf("%s, %v", out, err)
			}
			// What was on its way when it ended comes again: eight pieces at most.
			if _, n := store.Reset(); n > size-16<<20 || before+n > size+8*16<<20 {
				t.Errorf("%d bytes came before, %d after, of %d", before, n, int64(size))
			}
			if left, _ := os.ReadDir(dst); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	t.Run("another content meanwhile", func(t *testing.T) {
		t.Parallel()
		dst := t.TempDir()
		c, _, _, again := begun(t, "changed", dst)
		c.Process.Kill()
		c.Wait()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b[1]++
		other := filepath.Join(t.TempDir(), "other")
		if err := os.WriteFile(other, b, 0o644); err != nil {
			t.Fatal(err)
		}
		o.put(t, "s3", "own/resume/changed", other)
		out, err := again()
		if err != nil || sumOf(t, filepath.Join(dst, "changed")) != sumOf(t, other) {
			t.Errorf("%s, %v", out, err)
		}
	})
}

// TestDownloadChecksWhatCame fails when a byte that is wrong on its way is not
// found by the store's checksum, or when the file gets the final name.
func TestDownloadChecksWhatCame(t *testing.T) {
	t.Parallel()
	o := theObjects(t)
	store := s3Proxy(t)
	gcs := proxyTo(t, "http://"+o.gcs)
	gcs.As(o.gcs) // which it looks at
	azure := proxyTo(t, "http://"+o.azure)
	for _, c := range []struct {
		store string
		p     *count.Origin
		env   []string
	}{
		{"s3", store, s3Env(store.Addr())},
		{"gs", gcs, []string{"STORAGE_EMULATOR_HOST=" + gcs.URL}},
		{"wasbs", azure, []string{strings.ReplaceAll(o.azureEnv()[0], "http://"+o.azure, azure.URL)}},
	} {
		place := c.store + "://" + bucket
		if c.store == "wasbs" {
			place += azureHost
		}
		for _, size := range []int64{1000, 40 << 20} {
			key := fmt.Sprintf("own/checked/%d.bin", size)
			file := fileOf(t, size)
			o.put(t, c.store, key, file)
			var bent atomic.Int64
			c.p.Break(nil, func(r *http.Response) error {
				if r.Request.Method == http.MethodGet && strings.HasSuffix(r.Request.URL.Path, filepath.Base(key)) && bent.CompareAndSwap(0, 1) {
					fault.Turn(r)
				}
				return nil
			})
			dst := t.TempDir()
			args := []string{"download", "--dst", dst, place + "/" + key}
			_, err := command(t, join(c.env, fast), args...)
			var f *failed
			if !errors.As(err, &f) || f.code != 1 || !strings.Contains(f.said, "checksum") || bent.Load() != 1 {
				t.Errorf("%s of %d bytes: %v", c.store, size, err)
			}
			if left, _ := os.ReadDir(dst); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if _, err := command(t, join(c.env, fast), args...); err != nil || sumOf(t, filepath.Join(dst, filepath.Base(key))) != sumOf(t, file) {
				t.Errorf("%s, again: %v", c.store, err)
			}
		}
	}
}

// TestDownloadShowsProgress fails when a terminal shows no bar with bytes, rate and
// time left, or when something is shown with --quiet, or of what is over soon.
func TestDownloadShowsProgress(t *testing.T) {
	t.Parallel()
	or, o := originAt(t, "s3"), theObjects(t)
	store := s3Proxy(t)
	file := fileOf(t, 24<<20)
	o.put(t, "s3", "own/progress/f.bin", file)
	store.Break(nil, func(r *http.Response) error {
		fault.Pace(r, 12<<20)
		return nil
	})
	env := join(s3Env(store.Addr()), []string{"TERM=xterm", "MLFLOW_TRACKING_URI=" + or.server.url()})
	bin, err := shipped()
	if err != nil {
		t.Fatal(err)
	}
	line := bin + " download --dst " + t.TempDir() + " s3://" + bucket + "/own/progress"
	c := exec.Command("script", "-qec", "stty rows 24 cols 100; "+line, "/dev/null")
	c.Env = join(os.Environ(), env)
	out, err := c.CombinedOutput()
	for _, want := range []string{"24.0 MiB", "MiB/s", "s"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the bar does not show %q: %v\n%q", want, err, tail(string(out)))
		}
	}
	quiet := exec.Command("script", "-qec", "stty rows 24 cols 100; "+line+" --quiet", "/dev/null")
	quiet.Env = c.Env
	if out, err := quiet.CombinedOutput(); err != nil || strings.Contains(string(out), "MiB") {
		t.Errorf("--quiet shows %q, %v", out, err)
	}
	plain := mlflowfs(t, env, strings.Fields(line)[1:]...)
	var errs bytes.Buffer
	plain.Stderr = &errs
	if err := plain.Run(); err != nil || errs.Len() > 0 {
		t.Errorf("without a terminal: %v %s", err, &errs)
	}
}

// TestDownloadOfLocalArtifactsCopiesNothing fails when of a local artifact anything
// but its own path is given, or when it is not copied with --dst.
func TestDownloadOfLocalArtifactsCopiesNothing(t *testing.T) {
	t.Parallel()
	or := originAt(t, "path")
	env := []string{"MLFLOW_TRACKING_URI=" + or.server.url(), "TMPDIR=" + t.TempDir()}
	for arg, want := range map[string]string{
		"runs:/" + or.Run + "/d/g.txt": or.URI + "/d/g.txt", "runs:/" + or.Run + "/d": or.URI + "/d", or.URI: or.URI, "file://" + or.URI + "/a.txt": or.URI + "/a.txt",
	} {
		out, err := command(t, env, "download", arg)
		if got := strings.TrimSpace(string(out)); got != want || err != nil {
			t.Errorf("%s: %s, %v", arg, got, err)
		}
	}
	// Of a remote one without --dst a new temporary directory is made.
	remote := originAt(t, "served")
	out, err := command(t, append(env, "MLFLOW_TRACKING_URI="+remote.server.url()), "download", "--run-id", remote.Run, "--path", "d/g.txt")
	if got, rerr := os.ReadFile(strings.TrimSpace(string(out))); err != nil || rerr != nil || len(got) != 1000 {
		t.Errorf("%s, %v %v", out, err, rerr)
	}
}

// TestCommandErrorsSayWhy fails when what a command can't do is not said in a
// sentence, or not with the exit code that tells why.
func TestCommandErrorsSayWhy(t *testing.T) {
	t.Parallel()
	or, o := originAt(t, "s3"), theObjects(t)
	dst := t.TempDir()
	file := filepath.Join(dst, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	server := "MLFLOW_TRACKING_URI=" + or.server.url()
	all := join(o.env(), fast, []string{server})
	none := join(fast, []string{server})
	nowhere, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	run := "runs:/" + or.Run
	for _, c := range []struct {
		code  int
		env   []string
		args  string // with _ for spaces in an argument
		words []string
	}{
		{2, all, "ls", []string{"exactly one"}},
		{2, all, "download " + run + " --run-id " + or.Run, []string{"exactly one"}},
		{2, all, "download " + run + " --path x", []string{"--run-id"}},
		{2, all, "cat a b", []string{"one URI"}},
		{2, all, "lss " + run, []string{"lss", "no command", "ls"}},
		{2, all, "ls --artifact-access magic " + run, []string{"magic", "presigned"}},
		{2, all, "ls --nonsense " + run, []string{"--nonsense"}},
		{3, all, "ls s3://nobucket-here/x", []string{"no such bucket"}},
		{3, all, "ls gs://nobucket-here/x", []string{"no such bucket"}},
		{3, all, "ls wasbs://nocontainer" + azureHost + "/x", []string{"no such bucket"}},
		{3, all, "cat s3://" + bucket + "/own/no-key", []string{"own/no-key"}},
		{3, all, "cat gs://" + bucket + "/own/no-key", []string{"own/no-key"}},
		{3, all, "cat wasbs://" + bucket + azureHost + "/own/no-key", []string{"own/no-key"}},
		{3, all, "download --dst " + dst + " s3://" + bucket + "/own/no-key", []string{"own/no-key"}},
		{3, all, "ls runs:/0123456789abcdef0123456789abcdef", []string{"0123456789abcdef"}},
		{3, all, "ls --run-id 0123456789abcdef0123456789abcdef", []string{"0123456789abcdef"}},
		{3, all, "cat --run-id " + or.Run + "/d --path g.txt", []string{or.Run + "/d"}},
		{3, all, "cat " + run + "/no/file", []string{"no"}},
		{3, all, "cat " + run + "/a.txt/below", []string{"a.txt is a file"}},
		{3, all, "ls models:/no-model/1", []string{"no-model"}},
		{3, all, "ls models:/" + or.Model + "/77", []string{"77"}},
		{3, all, "ls models:/" + or.Model + "@no-alias", []string{"no-alias"}},
		{3, all, "ls models:/" + or.Model + "/Production", []string{"Production"}},
		{3, all, "ls models:/m-00000000000000000000000000000000", []string{"m-0000"}},
		{3, all, "ls /no/such/path", []string{"/no/such/path"}},
		{1, all, "ls models:/x", []string{"models:/<name>/<version>"}},
		{1, all, "cat " + run + "/d", []string{"directory", "download"}},
		{1, all, "download --dst " + file + " " + run, []string{"directory"}},
		{1, all, "ls nfs4://host/x", []string{"nfs4"}},
		{1, all, "ls s3:///x", []string{"bucket"}},
		{1, all, "ls wasbs://container/x", []string{"<account>"}},
		{1, all, "ls wasbs://container@account.evil.example/x", []string{"account.evil.example", "blob.core.windows.net"}},
		{1, all, "ls r2://bucket@evil.example/x", []string{"evil.example", "r2.cloudflarestorage.com", "MLFLOW_S3_ENDPOINT_URL"}},
		{1, all, "ls b2://bucket@backblazeb2.com.evil.example/x", []string{"evil.example", "backblazeb2.com"}},
		{1, all, "ls file://elsewhere/x", []string{"another host"}},
		{1, none, "cat --artifact-access presigned models:/" + or.Model + "/1/MLmodel", []string{"no access", "presigned"}},
		{4, none, "ls s3://" + bucket + "/own", []string{"AWS_ACCESS_KEY_ID", "AWS_PROFILE"}},
		{4, join(none, []string{"GOOGLE_APPLICATION_CREDENTIALS=/no/such/file"}), "ls gs://" + bucket + "/own", []string{"GOOGLE_APPLICATION_CREDENTIALS"}},
		{4, join(all, []string{"AWS_SECRET_ACCESS_KEY=s3cret-wrong"}), "ls s3://" + bucket + "/own", []string{"403"}},
		{4, join(all, []string{"AWS_ACCESS_KEY_ID=nobody"}), "ls s3://" + bucket + "/own", []string{"403"}},
		{1, join(none, []string{"AZURE_STORAGE_CONNECTION_STRING=s3cret"}), "ls wasbs://" + bucket + azureHost + "/own", []string{"AZURE_STORAGE_CONNECTION_STRING"}},
		{1, join(none, []string{"AZURE_STORAGE_ACCESS_KEY=s3cret-no-base64!"}), "ls wasbs://" + bucket + azureHost + "/own", []string{"AZURE_STORAGE_ACCESS_KEY"}},
		{1, join(none, []string{"AWS_PROFILE=no-profile"}), "ls s3://" + bucket + "/own", []string{"no-profile"}},
		{1, join(none, s3Env(fmt.Sprintf("127.0.0.1:%d", nowhere))), "ls s3://" + bucket + "/own", []string{"refused"}},
		{1, join(none, []string{fmt.Sprintf("MLFLOW_TRACKING_URI=http://127.0.0.1:%d", nowhere)}), "ls " + run, []string{"refused"}},
	} {
		var args []string
		for _, a := range strings.Fields(strings.ReplaceAll(c.args, or.Model, "_")) {
			args = append(args, strings.ReplaceAll(a, "_", or.Model))
		}
		out, err := command(t, c.env, args...)
		var f *failed
		if !errors.As(err, &f) {
			t.Errorf("%s: %v, %s", c.args, err, out)
			continue
		}
		for _, w := range c.words {
			if !strings.Contains(f.said, w) {
				t.Errorf("%s does not speak of %q: %s", c.args, w, f.said)
			}
		}
		if f.code != c.code || strings.Contains(f.said, "s3cret") || strings.Contains(f.said, azKey) || !strings.HasPrefix(f.said, "mlflowfs: ") || strings.Contains(f.said, "goroutine") {
			t.Errorf("%s: exit %d, want %d: %s", c.args, f.code, c.code, f.said)
		}
	}
}

// TestCredentialsAreFoundWhereTheClientsFindThem fails when a store's credentials or
// settings are not taken from where the store's own client takes them.
func TestCredentialsAreFoundWhereTheClientsFindThem(t *testing.T) {
	t.Parallel()
	or, o := originAt(t, "s3"), theObjects(t)
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"credentials": fmt.Sprintf("[prod]\naws_access_key_id = %s\naws_secret_access_key = %s\n", s3Key, s3Secret),
		"config":      "[profile prod]\nregion = us-east-1\nendpoint_url = http://" + o.s3 + "\n",
	} {
		if err := os.WriteFile(filepath.Join(home, ".aws", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := []string{"AWS_ACCESS_KEY_ID=" + s3Key, "AWS_SECRET_ACCESS_KEY=" + s3Secret}
	for what, c := range map[string]struct {
		env []string
		uri string
	}{
		"a profile":                        {[]string{"HOME=" + home, "AWS_PROFILE=prod"}, or.URI},
		"AWS's endpoint":                   {join(key, []string{"AWS_ENDPOINT_URL=http://" + o.s3}), or.URI},
		"a profile, MLflow's endpoint":     {[]string{"HOME=" + home, "AWS_PROFILE=prod", "MLFLOW_S3_ENDPOINT_URL=http://" + o.s3}, or.URI},
		"another region than the bucket's": {append(s3Env(o.s3), "AWS_REGION=eu-central-1"), or.URI},
		"TLS that is not to be checked":    {join(key, []string{"MLFLOW_S3_ENDPOINT_URL=https://" + o.s3tls, "MLFLOW_S3_IGNORE_TLS=true"}), or.URI},
		"TLS with a certificate":           {join(key, []string{"MLFLOW_S3_ENDPOINT_URL=https://" + o.s3tls, "AWS_CA_BUNDLE=" + o.ca}), or.URI},
		"b2":                               {join(key, []string{"AWS_CA_BUNDLE=" + o.ca, "MLFLOW_S3_ENDPOINT_URL=https://" + o.s3tls}), "b2://" + bucket + "@" + o.s3tls + "/own/" + or.Run + "/artifacts"},
		"GCS without a scheme":             {[]string{"STORAGE_EMULATOR_HOST=" + o.gcs}, originAt(t, "gs").URI},
	} {
		got, err := command(t, append(c.env, fast...), "cat", c.uri+"/d/e/f.txt")
		if string(got) != "deep" || err != nil {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	// A session's token is sent to the store.
	store := s3Proxy(t)
	command(t, join(s3Env(store.Addr()), []string{"AWS_SESSION_TOKEN=s3cret-session"}), "ls", or.URI)
	if h := store.Headers(); len(h) == 0 || h[0].Get("X-Amz-Security-Token") != "s3cret-session" {
		t.Errorf("the session's token is not sent: %v", h)
	}
	// Straight from the database, the run's own store is read all the same.
	db := "MLFLOW_TRACKING_URI=sqlite:///" + filepath.Join(or.server.dir, "mlflow.db")
	if got, err := command(t, join(s3Env(o.s3), fast, []string{db}), "cat", "runs:/"+or.Run+"/d/e/f.txt"); string(got) != "deep" || err != nil {
		t.Errorf("with a sqlite store: %q, %v", got, err)
	}
	_, err := command(t, join(key, []string{"MLFLOW_S3_ENDPOINT_URL=https://" + o.s3tls, "MLFLOW_HTTP_REQUEST_MAX_RETRIES=0"}), "ls", or.URI)
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody signed was taken: %v", err)
	}
}
