package sftp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// usualKeys are the keys that are offered where no other is named, as by ssh(1).
var usualKeys = []string{"id_ed25519", "id_ecdsa", "id_rsa"}

// methods are the ways in which the user is known to the host: by the password of the URI
// alone, as for MLflow's client, or by keys: those that ~/.ssh/config names, those of an
// agent, and the usual ones. close ends the talk with the agent; why says of each key that
// there is why it can't be used.
func (t *target) methods() (methods []ssh.AuthMethod, why func() string, close func()) {
	why, close = func() string { return "" }, func() {}
	if t.HasPassword {
		asked := func(_, _ string, questions []string, _ []bool) (answers []string, err error) {
			for range questions {
				answers = append(answers, t.Password)
			}
			return answers, nil
		}
		return []ssh.AuthMethod{ssh.Password(t.Password), ssh.KeyboardInteractive(asked)}, why, close
	}
	var bad []string
	signers := func() ([]ssh.Signer, error) {
		var out []ssh.Signer
		out, bad = t.signers()
		return out, nil
	}
	why = func() string { return strings.Join(bad, "; ") }
	return []ssh.AuthMethod{ssh.PublicKeysCallback(signers)}, why, t.leaveAgent
}

// signers are the keys that are offered, in order, each once; and why others are not.
func (t *target) signers() (out []ssh.Signer, bad []string) {
	held, err := t.agentSigners()
	if err != nil {
		bad = append(bad, err.Error())
	}
	add := func(s ssh.Signer) {
		if !slices.ContainsFunc(out, func(o ssh.Signer) bool { return bytes.Equal(o.PublicKey().Marshal(), s.PublicKey().Marshal()) }) {
			out = append(out, s)
		}
	}
	take := func(file string, named bool) {
		s, err := readKey(file, held)
		switch {
		case err == nil:
			add(s)
		case named || !errors.Is(err, os.ErrNotExist):
			bad = append(bad, err.Error())
		}
	}
	for _, f := range t.identityFiles {
		take(expand(f, t.home, t.Host, t.user, t.own), true)
	}
	if !t.identitiesOnly {
		for _, s := range held {
			add(s)
		}
	}
	if len(t.identityFiles) == 0 {
		for _, f := range usualKeys {
			take(filepath.Join(t.home, ".ssh", f), false)
		}
	}
	return out, bad
}

// readKey reads a private key; one with a passphrase is that of the agent's, if that has
// it.
func readKey(file string, held []ssh.Signer) (ssh.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if err == nil {
		return s, nil
	}
	if !errors.As(err, &locked) {
		return nil, fmt.Errorf("%s is no private key that can be read", file)
	}
	public := locked.PublicKey
	if text, err := os.ReadFile(file + ".pub"); public == nil && err == nil {
		public, _, _, _, _ = ssh.ParseAuthorizedKey(text)
	}
	for _, s := range held {
		if public != nil && bytes.Equal(s.PublicKey().Marshal(), public.Marshal()) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%s has a passphrase: give it to an agent with `ssh-add %s`, and set SSH_AUTH_SOCK", file, file)
}

// agentSigners are the keys of the user's agent, if there is one.
func (t *target) agentSigners() ([]ssh.Signer, error) {
	sock := t.env("SSH_AUTH_SOCK")
	if sock == "" {
		return nil, nil
	}
	conn, err := net.Dial("unix", sock)
	if err != nil {
		return nil, fmt.Errorf("the agent at SSH_AUTH_SOCK does not answer: %w", err)
	}
	t.agent = conn
	conn.SetDeadline(t.until)
	return agent.NewClient(conn).Signers()
}

func (t *target) leaveAgent() {
	if t.agent != nil {
		t.agent.Close()
	}
}
