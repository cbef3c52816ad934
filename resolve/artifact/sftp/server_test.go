package sftp

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a server of SSH of which a test knows what it was asked. Its files are those
// of this machine.
type server struct {
	addr     string
	port     int
	host     ssh.Signer // its key
	user     string
	password string
	key      ssh.PublicKey // of the user

	conns, auths, sessions atomic.Int64
	most                   int64         // sessions of a connection; 0: as many as are wanted
	deaf                   atomic.Bool   // it takes requests, and answers none
	handlers               sftp.Handlers // in the place of the files of this machine

	mu   sync.Mutex // guards what follows
	open map[net.Conn]bool
	l    net.Listener
}

// otherKind is another key of all servers, of another kind.
var otherKind = sync.OnceValue(func() ssh.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		panic(err)
	}
	return s
})

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start has the server listen; again on its port, where it did before.
func (s *server) start(t *testing.T) *server {
	t.Helper()
	if s.host == nil {
		s.host = newKey(t)
	}
	if s.addr == "" {
		s.addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.l, s.open = l, map[net.Conn]bool{}
	s.mu.Unlock()
	s.addr, s.port = l.Addr().String(), l.Addr().(*net.TCPAddr).Port
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			s.mu.Lock()
			s.open[c] = true
			s.mu.Unlock()
			go s.serve(c)
		}
	}()
	t.Cleanup(s.stop)
	return s
}

// stop ends it, with its connections.
func (s *server) stop() {
	s.l.Close()
	s.cut()
}

func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.Close()
	}
	clear(s.open)
}

func (s *server) serve(c net.Conn) {
	defer c.Close()
	refused := errors.New("refused")
	conf := &ssh.ServerConfig{
		PasswordCallback: func(m ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
			if s.auths.Add(1); s.password == "" || m.User() != s.user || string(p) != s.password {
				return nil, refused
			}
			return nil, nil
		},
		PublicKeyCallback: func(m ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			if s.auths.Add(1); s.key == nil || m.User() != s.user || string(k.Marshal()) != string(s.key.Marshal()) {
				return nil, refused
			}
			return nil, nil
		},
	}
	conf.AddHostKey(otherKind()) // which a client of Go's takes first, if it knows of no other
	conf.AddHostKey(s.host)
	_, chans, reqs, err := ssh.NewServerConn(c, conf)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	var n int64
	for ch := range chans {
		if n++; s.most > 0 && n > s.most {
			ch.Reject(ssh.ResourceShortage, "no more sessions")
			continue
		}
		channel, reqs, err := ch.Accept()
		if err != nil {
			return
		}
		s.sessions.Add(1)
		go func() {
			for r := range reqs {
				r.Reply(r.Type == "subsystem", nil)
			}
		}()
		go s.session(channel)
	}
}

// heard passes on what is asked, unless the server is deaf.
type heard struct {
	ssh.Channel
	deaf *atomic.Bool
}

func (h heard) Read(p []byte) (int, error) {
	for {
		n, err := h.Channel.Read(p)
		if err != nil || !h.deaf.Load() {
			return n, err
		}
	}
}

func (s *server) session(c ssh.Channel) {
	defer c.Close()
	if s.handlers.FileList != nil {
		sftp.NewRequestServer(heard{c, &s.deaf}, s.handlers).Serve()
		return
	}
	srv, err := sftp.NewServer(heard{c, &s.deaf})
	if err == nil {
		srv.Serve()
	}
}

// home is a user's directory, with what is known of hosts and a key of the user's.
type home struct {
	t   *testing.T
	dir string
	env map[string]string
}

func newHome(t *testing.T) *home {
	t.Helper()
	h := &home{t, t.TempDir(), map[string]string{}}
	h.write("known_hosts", "")
	return h
}

func (h *home) write(name, text string) string {
	h.t.Helper()
	p := filepath.Join(h.dir, ".ssh", name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte(text), 0o600)); err != nil {
		h.t.Fatal(err)
	}
	return p
}

// knows has the host known by a key.
func (h *home) knows(addr string, key ssh.PublicKey) {
	h.t.Helper()
	h.write("known_hosts", knownhosts.Line([]string{knownhosts.Normalize(addr)}, key)+"\n")
}

// newUserKey makes a private key, as a file has it, with a passphrase if there is one.
func newUserKey(t *testing.T, kind, passphrase string) (text string, public ssh.PublicKey, raw any) {
	t.Helper()
	var key any
	var err error
	if kind == "rsa" {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), s.PublicKey(), key
}

func (h *home) driver() Driver {
	return Driver{Settings: rest.Settings{Silence: 10 * time.Second}, Env: func(k string) string { return h.env[k] }, Home: h.dir, User: "me"}
}

// store opens a directory of this machine, by the server.
func (h *home) store(d Driver, authority, root string) *artifact.Remote {
	h.t.Helper()
	host, err := d.Open(authority)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); !host.Close(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				h.t.Error("somebody uses the connection still")
				return
			}
		}
	})
	return artifact.NewRemote(host.(*artifact.Host), artifact.RemoteOptions{URI: "sftp://h" + root, ID: "sftp://h" + root, Root: root, Log: slog.New(slog.DiscardHandler)})
}

// ready is a server that knows the user by a key, which the user has, and whom the user
// knows.
func ready(t *testing.T) (*server, *home) {
	t.Helper()
	text, public, _ := newUserKey(t, "ed25519", "")
	s := (&server{user: "me", key: public}).start(t)
	h := newHome(t)
	h.write("id_ed25519", text)
	h.knows(s.addr, s.host.PublicKey())
	return s, h
}

func (s *server) authority() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// read reads a range of a file.
func read(t *testing.T, r *artifact.Remote, file string, off, n int64, validator string) (string, string, error) {
	t.Helper()
	body, err := r.ReadRange(t.Context(), file, off, n, validator)
	if err != nil {
		return "", "", err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return string(b), body.Validator, err
}

// listed are the names of a directory, with sizes.
func listed(t *testing.T, r *artifact.Remote, dir string) ([]string, error) {
	t.Helper()
	tree, err := r.List(t.Context(), dir)
	if err != nil {
		return nil, err
	}
	entries, _ := artifact.Clean(slog.New(slog.DiscardHandler), dir, tree[dir])
	var out []string
	for _, e := range entries {
		if e.IsDir {
			out = append(out, e.Name+"/")
		} else {
			out = append(out, fmt.Sprint(e.Name, " ", e.Size))
		}
	}
	return out, nil
}

func fileWith(t *testing.T, dir, name, content string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	old := time.Now().Add(-time.Hour)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644), os.Chtimes(p, old, old)); err != nil {
		t.Fatal(err)
	}
	return p
}

// quotes tells whether an error holds a secret.
func quotes(err error, secret string) bool {
	return err != nil && strings.Contains(err.Error(), secret)
}
