package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// sshd is OpenSSH's server with a configuration, keys and a port of its own. Whoever has
// the home directory that it was made for knows it, and is known to it as any user of this
// machine.
type sshd struct {
	port int
	dir  string
	log  *count.Log
	cmd  *exec.Cmd
}

// startSSHD starts one, and writes to .ssh of the home directory what a client needs: a
// key, of the kind that MLflow's client reads, and what the host is known by, without the
// port, as MLflow's client looks for it.
func startSSHD(home string) (*sshd, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(work, "sshd-")
	if err != nil {
		return nil, err
	}
	s := &sshd{port: port, dir: dir, log: &count.Log{}}
	own := filepath.Join(home, ".ssh")
	if err := errors.Join(os.MkdirAll(own, 0o700), os.MkdirAll("/run/sshd", 0o755), os.Chmod(dir, 0o755)); err != nil {
		return nil, err
	}
	for _, key := range [][]string{{"-t", "ed25519", "-f", dir + "/host_ed25519"}, {"-t", "rsa", "-f", dir + "/host_rsa"}, {"-t", "rsa", "-m", "PEM", "-f", own + "/id_rsa"}} {
		if _, err := os.Stat(key[len(key)-1]); err == nil {
			continue
		}
		if out, err := exec.Command("ssh-keygen", append([]string{"-q", "-N", ""}, key...)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
	}
	kind, public, _ := strings.Cut(readFile(dir+"/host_ed25519.pub"), " ")
	public, _, _ = strings.Cut(public, " ")
	conf := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %[2]s/host_ed25519\nHostKey %[2]s/host_rsa\nAuthorizedKeysFile %[2]s/authorized\nPidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nMaxStartups 100\nSubsystem sftp internal-sftp\n", port, dir)
	if err := errors.Join(
		os.WriteFile(own+"/known_hosts", []byte("127.0.0.1 "+kind+" "+public+"\n"), 0o600),
		os.WriteFile(dir+"/authorized", []byte(readFile(own+"/id_rsa.pub")), 0o644),
		os.WriteFile(dir+"/sshd_config", []byte(conf), 0o600)); err != nil {
		return nil, err
	}
	return s, s.start()
}

// start starts it, again on its port.
func (s *sshd) start() error {
	s.cmd = exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", s.dir+"/sshd_config")
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", s.addr())
		if err == nil {
			c.Close()
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("sshd does not come up: %w\n%s", err, s.log)
		}
	}
}

// stop ends it, with its connections.
func (s *sshd) stop() {
	pids := s.serving()
	endGroup(s.cmd)
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// serving are the processes of its connections: its children, and theirs.
func (s *sshd) serving() (pids []int) {
	of := map[int]bool{s.cmd.Process.Pid: true}
	for range 3 {
		for _, p := range processes() {
			_, stat, _ := strings.Cut(p.file("stat"), ") ")
			var state string
			var parent int
			if fmt.Sscan(stat, &state, &parent); of[parent] && !of[p.pid] {
				of[p.pid] = true
				pids = append(pids, p.pid)
			}
		}
	}
	return pids
}

func (s *sshd) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// uri names a directory there, for a user.
func (s *sshd) uri(user, dir string) string { return "sftp://" + user + "@" + s.addr() + dir }
