// Package sftp opens hosts of sftp:// URIs: as MLflow's client does
// (mlflow.store.artifact.sftp_artifact_repo, and pysftp below it), by what the URI, the
// user's ~/.ssh/config and keys say, and besides by the keys of an agent. A host whose key
// is not known is never asked anything.
package sftp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

const defaultPort = 22

// Driver opens hosts.
type Driver struct {
	Settings rest.Settings
	Env      rest.Env
	Home     string // of the user; empty: there is none
	User     string // who runs this

	most int64 // bytes of a listing; 0: mostListing
}

// Open opens the host of a URI.
func (d Driver) Open(authority string) (artifact.FileSystem, error) {
	a, err := artifact.ParseAuthority(authority)
	if err != nil {
		return nil, err
	}
	if a.Host == "" {
		a.Host = "localhost" // as MLflow's client has it
	}
	return artifact.NewHost(func(ctx context.Context) (artifact.Connection, error) {
		c, err := d.dial(ctx, a)
		if err != nil {
			return nil, err
		}
		return c, nil
	}), nil
}

// target is a host as it is reached now: settings and keys are read anew for each
// connection.
type target struct {
	artifact.Authority
	hostConfig
	host      string // that is connected to
	port      int
	user, own string // there, and here
	home      string
	env       rest.Env
	until     time.Time
	agent     net.Conn
}

func (d Driver) target(a artifact.Authority) (*target, error) {
	t := &target{Authority: a, home: d.Home, env: d.Env, own: d.User, until: time.Now().Add(d.Settings.Silence)}
	text, err := os.ReadFile(filepath.Join(d.Home, ".ssh", "config"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	t.hostConfig = readConfig(string(text), a.Host)
	t.host = cmp.Or(t.hostName, a.Host)
	t.user = cmp.Or(a.User, t.hostConfig.user, d.Env("LOGNAME"), d.User)
	if t.port = a.Port; t.port == 0 && t.hostConfig.port != "" {
		if t.port, err = strconv.Atoi(t.hostConfig.port); err != nil {
			return nil, fmt.Errorf("~/.ssh/config has the Port %q for %s", t.hostConfig.port, a.Host)
		}
	}
	t.port = cmp.Or(t.port, defaultPort)
	return t, nil
}

// dial makes a connection with a session of SFTP.
func (d Driver) dial(ctx context.Context, a artifact.Authority) (*connection, error) {
	t, err := d.target(a)
	if err != nil {
		return nil, err
	}
	hosts, err := readKnown(d.Home)
	if err != nil {
		return nil, err
	}
	what := "sftp://" + net.JoinHostPort(t.host, strconv.Itoa(t.port))
	conn, err := d.Settings.Dial(ctx, net.JoinHostPort(t.host, strconv.Itoa(t.port)), what)
	if err != nil {
		return nil, err
	}
	defer conn.Await()()
	c, err := artifact.LetGo(ctx, func() (*connection, error) { return t.shake(conn, hosts, cmp.Or(d.most, mostListing)) }, func(c *connection) { c.Close() })
	if err != nil {
		conn.Close()
		return nil, cmp.Or(conn.Silence(), err)
	}
	return c, nil
}

// shake makes a session of a connection.
func (t *target) shake(conn *rest.Conn, hosts known, most int64) (*connection, error) {
	methods, why, leave := t.methods()
	defer leave()
	var refused error // of the host's key, which ssh wraps as words
	check := hosts.callback(t.host, t.port)
	sc, chans, reqs, err := ssh.NewClientConn(conn, conn.RemoteAddr().String(), &ssh.ClientConfig{
		User: t.user, Auth: methods, HostKeyAlgorithms: hosts.algorithms(t.host, t.port),
		HostKeyCallback: func(name string, remote net.Addr, key ssh.PublicKey) error {
			refused = check(name, remote, key)
			return refused
		},
	})
	if err != nil {
		return nil, t.refusal(cmp.Or(refused, err), why())
	}
	c := &connection{conn: conn, most: most, client: ssh.NewClient(sc, chans, reqs), ended: make(chan struct{})}
	go func() {
		c.client.Wait()
		close(c.ended)
	}()
	if c.names, err = c.session(); err != nil {
		c.Close()
		return nil, fmt.Errorf("the host %s gives no session of SFTP: %w", t.host, err)
	}
	files, err := c.session()
	if err != nil { // it may give one alone
		files, c.coming = c.names, maxSessions
	}
	c.files = append(c.files, files)
	return c, nil
}

// refusal says that the host does not know the user, where it said so. bad is why some of
// the user's keys were not offered.
func (t *target) refusal(err error, bad string) error {
	if !strings.Contains(err.Error(), "unable to authenticate") { // ssh has no error of its own for it
		return err
	}
	s := fmt.Sprintf("the host %s knows no key of this client's for the user %s: add one to ~/.ssh/authorized_keys there, or name its file as IdentityFile in ~/.ssh/config", t.host, t.user)
	if t.HasPassword {
		s = fmt.Sprintf("the host %s refuses the user and the password of the URI", t.host)
	}
	if bad != "" {
		s += " (" + bad + ")"
	}
	return artifact.NoCredentials(s)
}
