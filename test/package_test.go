package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The packages have what they say: on Debian the deb is installed, mounts by
// mount(8), and goes without a trace.
func TestPackages(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test installs a package: run it as root")
	}
	const version = "1.2.3"
	build := exec.Command("../packaging/build.sh", version)
	build.Env = append(os.Environ(), "ARCHES="+runtime.GOARCH, "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatal(tail(string(out)), err)
	}
	const dist = "../dist"
	defer os.RemoveAll(dist)
	sums, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
	if err != nil || strings.Count(string(sums), "\n") != 4 { // program, SBOM, deb, rpm
		t.Errorf("%s, %v", sums, err)
	}
	for _, l := range lines(sums) {
		sum, name, _ := strings.Cut(l, "  ")
		b, err := os.ReadFile(filepath.Join(dist, name))
		if err != nil || fmt.Sprintf("%x", sha256.Sum256(b)) != sum {
			t.Errorf("%s: %v", name, err)
		}
	}
	var sbom struct {
		Components []struct{ Name string }
	}
	b, err := os.ReadFile(filepath.Join(dist, "mlflowfs-"+version+"-linux-"+runtime.GOARCH+".cdx.json"))
	if err != nil || json.Unmarshal(b, &sbom) != nil || len(sbom.Components) < 20 || !bytes.Contains(b, []byte("github.com/hanwen/go-fuse/v2")) {
		t.Errorf("the SBOM has %d components, %v", len(sbom.Components), err)
	}

	wanted := []string{
		"/usr/bin/mlflowfs", "/usr/sbin/mount.mlflowfs", "/usr/lib/systemd/system/mlflowfs@.service", "/usr/share/man/man1/mlflowfs.1.gz", "/usr/share/man/man1/mlflowfs-mount.1.gz",
		"/usr/share/bash-completion/completions/mlflowfs", "/usr/share/zsh/vendor-completions/_mlflowfs", "/usr/share/fish/vendor_completions.d/mlflowfs.fish",
	}
	rpms, _ := filepath.Glob(dist + "/*.rpm")
	if len(rpms) != 1 {
		t.Fatal(rpms)
	}
	listed, err := output("rpm", "-qlp", rpms[0])
	for _, w := range wanted {
		if err != nil || !strings.Contains(string(listed), w+"\n") {
			t.Errorf("the rpm lacks %s, %v", w, err)
		}
	}

	debs, _ := filepath.Glob(dist + "/*.deb")
	if len(debs) != 1 {
		t.Fatal(debs)
	}
	if out, err := exec.Command("dpkg", "-i", debs[0]).CombinedOutput(); err != nil {
		t.Fatal(string(out), err)
	}
	removed := false
	remove := func() {
		if !removed {
			removed = true
			if out, err := exec.Command("dpkg", "--purge", "mlflowfs").CombinedOutput(); err != nil {
				t.Error(string(out), err)
			}
		}
	}
	defer remove()
	for _, w := range wanted {
		if st, err := os.Stat(w); err != nil || st.Size() < 100 {
			t.Errorf("%s: %v, %v", w, st, err)
		}
	}
	if out, err := output("/usr/bin/mlflowfs", "--version"); err != nil || !strings.Contains(string(out), version) {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := output("file", "/usr/bin/mlflowfs"); err == nil && !strings.Contains(string(out), "statically linked") {
		t.Errorf("%s", out)
	}
	if out, err := output("bash", "-c", "source /usr/share/bash-completion/completions/mlflowfs && complete -p mlflowfs"); err != nil || !strings.Contains(string(out), "mlflowfs") {
		t.Errorf("no completion: %s, %v", out, err)
	}
	page, err := output("zcat", "/usr/share/man/man1/mlflowfs-mount.1.gz")
	for _, w := range []string{"cache\\-size", "MLFLOWFS", ".TH"} {
		if err != nil || !strings.Contains(string(page), w) && !strings.Contains(string(page), strings.ReplaceAll(w, "\\", "")) {
			t.Errorf("the man page of mount lacks %q, %v", w, err)
		}
	}

	// The three commands of a new user's: the package, a directory, the mount.
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	dir, err := os.MkdirTemp(work, "mnt-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	if out, err := exec.Command("mount", "-t", "mlflowfs", e.URL, dir, "-o", "cache_dir="+t.TempDir()+",log_file="+filepath.Join(t.TempDir(), "log")).CombinedOutput(); err != nil {
		t.Fatal(string(out), err)
	}
	e.same(t, &mount{t: t, dir: dir}, "f")
	if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
		t.Error(string(out), err)
	}
	remove()
	for _, w := range wanted {
		if _, err := os.Lstat(w); err == nil {
			t.Errorf("%s is left behind", w)
		}
	}
}
