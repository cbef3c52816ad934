package sftp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

// systemHosts are the hosts that the machine's administrator knows.
const systemHosts = "/etc/ssh/ssh_known_hosts"

// known holds the keys of hosts against the files in which they are known. A key is never
// learnt here.
type known struct {
	check       ssh.HostKeyCallback
	user        string // the user's own file
	authorities bool   // some hosts are known by who signs their keys
}

func readKnown(home string) (known, error) {
	own := filepath.Join(home, ".ssh", "known_hosts")
	var files []string
	authorities := false
	for _, f := range []string{own, systemHosts} {
		text, err := os.ReadFile(f)
		if err == nil {
			files = append(files, f)
			authorities = authorities || bytes.Contains(text, []byte("@cert-authority"))
		}
	}
	check, err := knownhosts.New(files...)
	if err != nil {
		return known{}, artifact.NoCredentials(fmt.Sprintf("the known hosts can't be read: %v: mend that line", err))
	}
	return known{check, own, authorities}, nil
}

// at is what a host is known as: with the port, where that is not SSH's own, or, as for
// ssh(1) and MLflow's client, without it.
func (k known) at(host string, port int, try func(addr string) error) error {
	err := try(net.JoinHostPort(host, strconv.Itoa(port)))
	if unknown(err) && port != defaultPort {
		if plain := try(net.JoinHostPort(host, strconv.Itoa(defaultPort))); !unknown(plain) {
			return plain
		}
	}
	return err
}

// unknown tells whether no key of the host is known.
func unknown(err error) bool {
	var key *knownhosts.KeyError
	return errors.As(err, &key) && len(key.Want) == 0
}

// callback checks the key that a host shows.
func (k known) callback(host string, port int) ssh.HostKeyCallback {
	return func(_ string, remote net.Addr, key ssh.PublicKey) error {
		err := k.at(host, port, func(addr string) error { return k.check(addr, remote, key) })
		var differs *knownhosts.KeyError
		var revoked *knownhosts.RevokedError
		scan := "ssh-keyscan " + host
		if port != defaultPort {
			scan = fmt.Sprintf("ssh-keyscan -p %d %s", port, host)
		}
		switch {
		case err == nil:
			return nil
		case unknown(err):
			return artifact.NoCredentials(fmt.Sprintf("the key of the host %s is not known, %s: compare it with what its administrator tells, and add it to %s (`%s` prints it, or connect once with ssh)", host, ssh.FingerprintSHA256(key), k.user, scan))
		case errors.As(err, &differs):
			return artifact.NoCredentials(fmt.Sprintf("the key of the host %s is %s and not the one that is known (%s, line %d): somebody may stand between; if its administrator says that it is new, mend that line", host, ssh.FingerprintSHA256(key), differs.Want[0].Filename, differs.Want[0].Line))
		case errors.As(err, &revoked):
			return artifact.NoCredentials(fmt.Sprintf("the key of the host %s is revoked (%s, line %d)", host, revoked.Revoked.Filename, revoked.Revoked.Line))
		}
		return err
	}
}

// algorithms are those of the keys that are known of a host: it shows another kind of key
// otherwise, which is not known. None are known: nil.
func (k known) algorithms(host string, port int) (out []string) {
	err := k.at(host, port, func(addr string) error { return k.check(addr, &net.TCPAddr{IP: net.IPv4zero}, noKey{}) })
	var differs *knownhosts.KeyError
	if !errors.As(err, &differs) {
		return nil
	}
	if k.authorities && len(differs.Want) > 0 {
		out = append(out, ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01)
	}
	for _, w := range differs.Want {
		for _, a := range algorithmsOf(w.Key.Type()) {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

func algorithmsOf(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

// noKey is a key that no host has.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("it is no key") }

var _ ssh.PublicKey = noKey{}
