package sftp

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/mlflowfs/mlflowfs/cache"
)

// TestHostIsKnownOrRefused fails when a host whose key is not known, or is another than
// the one that is known, is asked who the user is, or learns the password; when what it
// says does not tell what to do; or when a host that is known is refused, be it by a name
// with the port or, as by ssh, without, and whatever kinds of key it has besides.
func TestHostIsKnownOrRefused(t *testing.T) {
	t.Parallel()
	s := (&server{user: "me", password: "s3cret"}).start(t)
	other := newKey(t).PublicKey()
	line := func(name string, key ssh.PublicKey) string { return knownhosts.Line([]string{name}, key) + "\n" }
	withPort := fmt.Sprintf("[127.0.0.1]:%d", s.port)
	for name, c := range map[string]struct{ known, says string }{
		"unknown":               {"", "ssh-keyscan -p"},
		"another host":          {line("[127.0.0.1]:1", s.host.PublicKey()) + line("127.0.0.2", s.host.PublicKey()), "ssh-keyscan -p"},
		"changed":               {"# first\n" + line(withPort, other), "line 2"},
		"changed, by the name":  {line("127.0.0.1", other), "not the one that is known"},
		"revoked":               {line(withPort, s.host.PublicKey()) + "@revoked * " + strings.SplitN(line("x", s.host.PublicKey()), " ", 2)[1], "revoked"},
		"not to be read":        {line(withPort, s.host.PublicKey()) + "host ssh-none AAAA\n", "known_hosts:2"},
		"known":                 {line(withPort, s.host.PublicKey()), ""},
		"known without a port":  {line("127.0.0.1", s.host.PublicKey()), ""},
		"known, hashed":         {line(knownhosts.HashHostname(withPort), s.host.PublicKey()), ""},
		"known by another, too": {line(withPort, other) + line(withPort, s.host.PublicKey()), ""},
	} {
		h := newHome(t)
		h.write("known_hosts", c.known)
		before := s.auths.Load()
		_, err := listed(t, h.store(h.driver(), "me:s3cret@"+s.authority(), t.TempDir()), "")
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), c.says) || quotes(err, "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
		if s.auths.Load() != before {
			t.Errorf("%s: the host was told who the user is", name)
		}
		if b, _ := os.ReadFile(filepath.Join(h.dir, ".ssh", "known_hosts")); string(b) != c.known {
			t.Errorf("%s: a key was learnt", name)
		}
	}
}

// TestUserIsKnownAsToSSH fails when a key or a password that the URI, ~/.ssh/config or an
// agent has is not offered, when a host is offered keys beside a password, or when what is
// said of one that is refused holds a password, or does not tell what to do.
func TestUserIsKnownAsToSSH(t *testing.T) {
	t.Parallel()
	plain, public, _ := newUserKey(t, "ed25519", "")
	rsaText, rsaPublic, _ := newUserKey(t, "rsa", "")
	locked, lockedPublic, lockedKey := newUserKey(t, "ed25519", "s3cret phrase")
	for name, c := range map[string]struct {
		key      ssh.PublicKey
		password string
		files    map[string]string // below ~/.ssh
		agent    any
		login    string // in the URI
		says     string // nothing: it is let in
	}{
		"the usual key":          {key: public, files: map[string]string{"id_ed25519": plain}, login: "me@"},
		"RSA, as for MLflow":     {key: rsaPublic, files: map[string]string{"id_rsa": rsaText}, login: "me@"},
		"by the second key":      {key: rsaPublic, files: map[string]string{"id_ed25519": plain, "id_rsa": rsaText}, login: "me@"},
		"named in the config":    {key: public, files: map[string]string{"config": "Host 127.0.0.1\n IdentityFile ~/.ssh/mine\n User me\n", "mine": plain}},
		"with a passphrase":      {key: lockedPublic, files: map[string]string{"id_ed25519": locked}, login: "me@", says: "ssh-add"},
		"held by an agent":       {key: lockedPublic, files: map[string]string{"id_ed25519": locked}, agent: lockedKey, login: "me@"},
		"by the agent alone":     {key: lockedPublic, agent: lockedKey, login: "me@"},
		"none":                   {key: public, login: "me@", says: "IdentityFile"},
		"as another user":        {key: public, files: map[string]string{"id_ed25519": plain}, login: "root@", says: "the user root"},
		"a key that is none":     {key: public, files: map[string]string{"id_ed25519": "-----BEGIN s3cret-----"}, login: "me@", says: "no private key"},
		"a named key is missing": {key: public, files: map[string]string{"config": "IdentityFile ~/.ssh/gone"}, login: "me@", says: "gone"},
		"a password":             {password: "s3cret", login: "me:s3cret@"},
		"one with an @ and a :":  {password: "s3:c@ret", login: "me:s3:c@ret@"},
		"a wrong password":       {password: "other", login: "me:s3cret@", says: "password"},
		"a password, and no key": {key: public, files: map[string]string{"id_ed25519": plain}, login: "me:s3cret@", says: "password"},
		"the user of this side":  {key: public, files: map[string]string{"id_ed25519": plain}},
	} {
		s := (&server{user: "me", key: c.key, password: c.password}).start(t)
		h := newHome(t)
		h.knows(s.addr, s.host.PublicKey())
		for f, text := range c.files {
			h.write(f, text)
		}
		if c.agent != nil {
			h.env["SSH_AUTH_SOCK"] = startAgent(t, c.agent)
		}
		_, err := listed(t, h.store(h.driver(), c.login+s.authority(), t.TempDir()), "")
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.says != "" && (!errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v", name, err)
		}
		if quotes(err, "s3cret") || quotes(err, "s3:c") {
			t.Errorf("%s: a secret is said: %v", name, err)
		}
		if name == "a password, and no key" && s.auths.Load() > 2 {
			t.Errorf("%s: asked %d times", name, s.auths.Load())
		}
	}
}

// startAgent starts an agent that holds a key.
func startAgent(t *testing.T, key any) (socket string) {
	t.Helper()
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				agent.ServeAgent(ring, c)
				c.Close()
			}()
		}
	}()
	return socket
}

// TestConfigLeadsToTheHost fails when ~/.ssh/config names the host, its port and the user
// of an alias, and another host is asked, or as another user.
func TestConfigLeadsToTheHost(t *testing.T) {
	t.Parallel()
	s, h := ready(t)
	h.write("config", fmt.Sprintf("Host art*\n  HostName 127.0.0.1\n  Port %d\n  User me\nHost *\n  User nobody\n", s.port))
	d := h.driver()
	d.User = "somebody"
	if _, err := listed(t, h.store(d, "ArtiFacts", t.TempDir()), ""); err != nil {
		t.Error(err)
	}
	h.write("config", "Host 127.0.0.1\n  Port 1\n")
	if _, err := listed(t, h.store(d, "me@"+s.authority(), t.TempDir()), ""); err != nil {
		t.Error("the port of the URI goes first:", err)
	}
}

// TestFilesOfAHostAreAsTheyLie fails when some file of a host, by whatever name and of
// whatever size, is listed or read as other than it lies there; when what is not there, or
// may not be read, is another error than that; or when a named pipe is waited for.
func TestFilesOfAHostAreAsTheyLie(t *testing.T) {
	t.Parallel()
	s, h := ready(t)
	dir := t.TempDir()
	big := strings.Repeat("0123456789abcdef", 3<<16) // 3 MiB
	files := map[string]string{"empty": "", "big": big, "h#ash": "a", "p%41c": "b", "sp ace": "c", "new\nline": "d", "\xff\xfe": "e", "q?mark": "f", "ü/deep/er": "g", "back\\slash": "h", ".hidden": "i", strings.Repeat("n", 255): "j"}
	for name, content := range files {
		fileWith(t, dir, name, content)
	}
	if err := errors.Join(os.Symlink("big", filepath.Join(dir, "link")), os.Symlink("nowhere", filepath.Join(dir, "dangling")), os.Symlink("ü", filepath.Join(dir, "dirlink")), syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r := h.store(h.driver(), s.authority(), dir)
	got, err := listed(t, r, "")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{".hidden 1", "back\\slash 1", fmt.Sprint("big ", len(big)), "dirlink/", "empty 0", "h#ash 1", fmt.Sprint("link ", len(big)), "new\nline 1", strings.Repeat("n", 255) + " 1", "p%41c 1", "q?mark 1", "sp ace 1", "ü/", "\xff\xfe 1"}
	if d := cmp.Diff(len(want), len(got)); d != "" {
		t.Errorf("%q", got)
	}
	for _, w := range want {
		if !strings.Contains("\x00"+strings.Join(got, "\x00")+"\x00", "\x00"+w+"\x00") {
			t.Errorf("%q is not listed", w)
		}
	}
	for name, content := range files {
		if got, _, err := read(t, r, name, 0, int64(len(content)), ""); got != content || err != nil {
			t.Errorf("%q: %d bytes, %v", name, len(got), err)
		}
		if e, err := r.Stat(t.Context(), name); e.Size != int64(len(content)) || e.Name != filepath.Base(name) || e.Version == "" || err != nil {
			t.Errorf("%q: %+v, %v", name, e, err)
		}
	}
	if got, _, err := read(t, r, "dirlink/deep/er", 0, 1, ""); got != "g" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, _, err := read(t, r, "big", 1<<20+1, 1<<20, ""); got != big[1<<20+1:2<<20+1] || err != nil {
		t.Errorf("a range: %d bytes, %v", len(got), err)
	}
	for _, p := range []string{"none", "none/x", "pipe", "dangling", "ü"} {
		if _, _, err := read(t, r, p, 0, 1, ""); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, err := r.List(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestFileOfAHostIsOneVersion fails when a file that is replaced, written over or cut
// short while it is read gives bytes of two versions, or when who reads one on that was
// replaced by another of its name does not get what was opened.
func TestFileOfAHostIsOneVersion(t *testing.T) {
	t.Parallel()
	s, h := ready(t)
	dir := t.TempDir()
	const size = 8 << 20
	first := strings.Repeat("a", size)
	for name, change := range map[string]func(p string) error{
		"written over": func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("b", size)), 0o644) },
		"cut short":    func(p string) error { return os.Truncate(p, 1000) },
		"made longer":  func(p string) error { return os.Truncate(p, size+1) },
		"replaced":     func(p string) error { return os.Rename(fileWith(t, dir, "new", strings.Repeat("b", size)), p) },
		"removed":      os.Remove,
	} {
		p := fileWith(t, dir, name, first)
		r := h.store(h.driver(), s.authority(), dir)
		body, err := r.ReadRange(t.Context(), name, 0, size, "")
		if err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 100)
		io.ReadFull(body, head)
		if err := change(p); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(body)
		body.Close()
		kept := name == "replaced" || name == "removed"
		if strings.Contains(string(rest), "b") || kept != (err == nil) || !kept && !errors.Is(err, cache.ErrChanged) || kept && len(rest) != size-100 {
			t.Errorf("%s: %d bytes, with a b: %v, %v", name, len(rest), strings.Contains(string(rest), "b"), err)
		}
		if got, now, err := read(t, r, name, 0, 10, ""); name != "removed" && (err != nil || now == body.Validator && name != "replaced") || name == "removed" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s, then: %q, %s, %v", name, got, now, err)
		}
	}
}
