package test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// release is an MLflow release: mlflow3 or mlflow2.
type release string

func (r release) bin(name string) string { return filepath.Join(testenv(), string(r), "bin", name) }

// python runs one of the scripts here with the release's client.
func (r release) python(t *testing.T, env []string, stdin string, script string, args ...string) string {
	t.Helper()
	path, err := filepath.Abs(script)
	if err != nil {
		t.Fatal(err)
	}
	return r.code(t, t.TempDir(), env, stdin, append([]string{path}, args...)...)
}

// code is python for a script's path, or "-c" and code, in a directory.
func (r release) code(t *testing.T, dir string, env []string, stdin string, args ...string) string {
	t.Helper()
	out, err := r.run(dir, append(pythonEnv(), env...), stdin, args...)
	if err != nil {
		t.Fatalf("%s %.300v: %v", r, args, err)
	}
	return out
}

// run is code without a test; what the script said stands in the error.
func (r release) run(dir string, env []string, stdin string, args ...string) (string, error) {
	f := pythons[r]
	f.once.Do(func() { f.err = f.start(r) })
	if f.err != nil {
		return "", f.err
	}
	c, err := net.Dial("unix", f.socket)
	if err != nil {
		return "", err
	}
	defer c.Close()
	vars := map[string]string{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		vars[name] = value
	}
	var answer struct {
		Code      int
		Out, Errs string
	}
	err = json.NewEncoder(c).Encode(map[string]any{"args": args, "env": vars, "dir": dir, "stdin": stdin})
	if err == nil {
		err = json.NewDecoder(bufio.NewReader(c)).Decode(&answer)
	}
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, tail(f.log.String()))
	}
	if answer.Code != 0 {
		return "", fmt.Errorf("it ends with %d\n%s%s", answer.Code, tail(answer.Out), tail(answer.Errs))
	}
	return answer.Out, nil
}

// forking is a process with a release's client imported, from which its scripts are
// forked; see fork.py. It starts when the first test wants it.
type forking struct {
	once   sync.Once
	err    error
	socket string
	cmd    *exec.Cmd
	log    count.Log
}

type forkings map[release]*forking

var pythons = forkings{"mlflow3": {}, "mlflow2": {}, "mlflow1": {}}

func (f *forking) start(r release) error {
	script, err := filepath.Abs("fork.py")
	if err != nil {
		return err
	}
	f.socket = filepath.Join(work, string(r)+".socket")
	f.cmd = exec.Command(r.bin("python"), script, f.socket)
	f.cmd.Dir, f.cmd.Env, f.cmd.Stdout, f.cmd.Stderr = work, pythonEnv(), &f.log, &f.log
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := f.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.Dial("unix", f.socket)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("%s does not come up: %w\n%s", script, err, tail(f.log.String()))
		}
	}
}

func (x forkings) stop() {
	for _, f := range x {
		if f.cmd != nil && f.cmd.Process != nil {
			endGroup(f.cmd)
		}
	}
}

// noMetadata keeps AWS's SDKs from asking for credentials at an address that
// only a cloud's machines have.
const noMetadata = "AWS_EC2_METADATA_DISABLED=true"

func pythonEnv() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + work, "LANG=C.UTF-8", "PYTHONWARNINGS=ignore", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=2",
		"MLFLOW_ALLOW_FILE_STORE=true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false", "MLFLOW_DISABLE_TELEMETRY=true", "GIT_PYTHON_REFRESH=quiet",
		noMetadata,
	}
}
