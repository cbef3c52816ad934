package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPackagesInstall fails when the packages lack what they say, or when the
// other machine's program does not run. What is in the deb a new Debian shows.
func TestPackagesInstall(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it installs packages")
	const version = "1.2.3"
	build := exec.Command("../packaging/build.sh", version)
	build.Env = append(os.Environ(), "FORMATS=deb rpm") // the wheels are another test's
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatal(tail(string(out)), err)
	}
	const dist = "../dist"
	t.Cleanup(func() { os.RemoveAll(dist) })
	sums, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
	if err != nil || strings.Count(string(sums), "\n") != 8 { // program, SBOM, deb and rpm, for two machines
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
	for name, install := range map[string]func(t *testing.T){
		"rpm":           func(t *testing.T) { rpmComesAndGoes(t, dist, wanted) },
		"other machine": func(t *testing.T) { emulated(t, dist) },
		"new Debian":    func(t *testing.T) { newDebian(t, dist, version, wanted) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			install(t)
		})
	}
}

// only is the one file of that pattern.
func only(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) != 1 {
		t.Fatal(pattern, names, err)
	}
	return names[0]
}

// The rpm is installed below a root of its own, by rpm itself, and goes without a
// trace.
func rpmComesAndGoes(t *testing.T, dist string, wanted []string) {
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	pkg, err := filepath.Abs(only(t, filepath.Join(dist, "*."+machine+".rpm")))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	rpm := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("rpm", append([]string{"--root", root}, args...)...).CombinedOutput(); err != nil {
			t.Fatal(args, string(out), err)
		}
	}
	rpm("--initdb")
	rpm("-i", "--nodeps", pkg)
	for _, w := range wanted {
		if st, err := os.Lstat(filepath.Join(root, w)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", w, err)
		}
	}
	rpm("-e", "mlflowfs")
	for _, w := range wanted {
		if _, err := os.Lstat(filepath.Join(root, w)); err == nil {
			t.Errorf("%s is left behind", w)
		}
	}
}

// The program for the other machine mounts and reads, on an emulator of it.
func emulated(t *testing.T, dist string) {
	other, emulator := "arm64", "qemu-aarch64-static"
	if runtime.GOARCH == other {
		other, emulator = "amd64", "qemu-x86_64-static"
	}
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	dir, err := os.MkdirTemp(work, "mnt-")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(emulator, filepath.Join(dist, other, "mlflowfs"), "mount", "--tracking-uri", e.URL, "--cache-dir", t.TempDir(), dir)
	c.Env = append(os.Environ(), fast...)
	m := launch(t, dir, c)
	t.Cleanup(m.stop)
	e.same(t, m, "f")
}

// newDebian has a Debian of no more than what its installer brings, which boots
// in namespaces of its own, follow the pages: three commands install and mount;
// what boots with the machine is there after a boot; and nothing is left of it.
func newDebian(t *testing.T, dist, version string, wanted []string) {
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	content, err := os.ReadFile(filepath.Join(e.dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	d := &debian{t: t, root: t.TempDir(), dist: dist}
	over := t.TempDir() // on a memory of its own: what is below may be such an overlay itself
	mount := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
			t.Fatal(args, string(out), err)
		}
		t.Cleanup(func() { syscall.Unmount(args[len(args)-1], syscall.MNT_DETACH) })
	}
	mount("-t", "tmpfs", "none", over)
	for _, name := range []string{"up", "work"} {
		if err := os.Mkdir(filepath.Join(over, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount("-t", "overlay", "none", "-o", "lowerdir="+filepath.Join(testenv(), "debian")+",upperdir="+over+"/up,workdir="+over+"/work", d.root)
	values := strings.NewReplacer("SERVER", e.URL, "FILE", "runs/"+e.run+"/f", "SUM", fmt.Sprintf("%x", sha256.Sum256(content)),
		"VERSION", version, "WANTED", strings.Join(wanted, " "), "ARCH", runtime.GOARCH)
	d.boot(values.Replace(installed))
	d.boot(values.Replace(booted))
}

const installed = `
cd /dist
apt-get install -qq -y ./mlflowfs_*_ARCH.deb </dev/null
mkdir /mnt/mlflow
mount -t mlflowfs SERVER /mnt/mlflow
echo 'SUM  /mnt/mlflow/FILE' | sha256sum -c
dpkg -i ./mlflowfs_*_ARCH.deb # has the mount upgraded
mlflowfs status /mnt/mlflow | grep upgraded
echo 'SUM  /mnt/mlflow/FILE' | sha256sum -c
umount /mnt/mlflow

mlflowfs --version | grep VERSION
for f in WANTED; do test "$(stat -L -c %s $f)" -gt 100; done
zcat /usr/share/man/man1/mlflowfs-mount.1.gz | grep -q MLFLOWFS
zcat /usr/share/man/man1/mlflowfs-mount.1.gz | grep -q 'cache.*size'
bash -c 'source /usr/share/bash-completion/completions/mlflowfs && complete -p mlflowfs'

# What begins with the machine: a line of fstab, the unit for a file of settings, and a mount when somebody looks.
echo 'SERVER /mnt/mlflow mlflowfs _netdev,allow_other,cache_size=20M 0 0' >>/etc/fstab
mkdir -p /etc/mlflowfs
echo 'tracking-uri: SERVER' >/etc/mlflowfs/team.yaml
systemctl enable mlflowfs@team
for kind in mount automount; do
	sed 's#/mnt/mlflow#/mnt/looked#; s#http://localhost:5000#SERVER#' /usr/share/doc/mlflowfs/examples/mnt-mlflow.$kind >/etc/systemd/system/mnt-looked.$kind
done
systemd-analyze verify --man=no /etc/systemd/system/mnt-looked.mount /usr/lib/systemd/system/mlflowfs@.service
systemctl enable mnt-looked.automount
`

const booted = `
for dir in mlflow team; do
	grep "/mnt/$dir fuse.mlflowfs" /proc/mounts
	echo "SUM  /mnt/$dir/FILE" | sha256sum -c
done
systemctl is-active mnt-mlflow.mount mlflowfs@team
systemctl reload mlflowfs@team && mlflowfs status /mnt/team | grep -w '^upgraded'
echo 'SUM  /mnt/team/FILE' | sha256sum -c
! grep '/mnt/looked fuse.mlflowfs' /proc/mounts
echo 'SUM  /mnt/looked/FILE' | sha256sum -c
mlflowfs list
journalctl -u mlflowfs@team | grep '/mnt/team shows'

# Killed, it is there again.
kill -9 $(systemctl show -p MainPID --value mlflowfs@team)
sleep 1
for try in $(seq 60); do test -e /mnt/team/FILE && break; sleep 0.5; done
echo 'SUM  /mnt/team/FILE' | sha256sum -c

systemctl disable mlflowfs@team mnt-looked.automount
systemctl stop mnt-looked.automount mlflowfs@team
umount /mnt/mlflow
! grep fuse.mlflowfs /proc/mounts
apt-get purge -qq -y mlflowfs </dev/null
for f in WANTED; do ! test -e $f; done
`

// debian is the root of a Debian that boots.
type debian struct {
	t          *testing.T
	root, dist string
}

// boot starts the machine, has it run a script when all is up, and ends it.
func (d *debian) boot(script string) {
	d.t.Helper()
	const unit = `[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash -exc '. /script; echo done'
ExecStopPost=/bin/sh -c 'journalctl -b --no-pager >/journal; systemctl exit 0 --no-block'
StandardOutput=file:/said
StandardError=file:/said
[Install]
WantedBy=default.target
`
	for name, text := range map[string]string{"/script": script, "/etc/systemd/system/script.service": unit, "/said": ""} {
		if err := os.WriteFile(d.root+name, []byte(text), 0o644); err != nil {
			d.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if out, err := exec.Command("systemctl", "--root", d.root, "enable", "script.service").CombinedOutput(); err != nil {
		d.t.Fatal(string(out), err)
	}
	dist, err := filepath.Abs(d.dist)
	if err != nil {
		d.t.Fatal(err)
	}
	c := exec.CommandContext(ctx, "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--resolv-conf=copy-host",
		"--bind=/dev/fuse", "--bind=/dev/autofs", "--bind-ro="+dist+":/dist", "-D", d.root, "--boot")
	out, err := c.CombinedOutput()
	said, _ := os.ReadFile(d.root + "/said")
	journal, _ := os.ReadFile(d.root + "/journal")
	if err != nil || !strings.HasSuffix(string(said), "\ndone\n") {
		d.t.Fatalf("%v\n%s\n%s\n%s", err, tail(string(out)), tail(string(journal)), tail(string(said)))
	}
}
