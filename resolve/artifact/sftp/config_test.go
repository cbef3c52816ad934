package sftp

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// TestConfigIsReadAsItIsAgainstMLflow fails when ~/.ssh/config means another host, port, user
// or key here than for MLflow's client, which reads it by paramiko.
func TestConfigIsReadAsItIsAgainstMLflow(t *testing.T) {
	t.Parallel()
	type means struct{ HostName, User, Port, Key string }
	type asked struct{ Text, Host string }
	var all []asked
	for _, text := range []string{
		"", "# nothing\n\n", "Host a\n  HostName b\n  Port 23\n", "host A\n hostname b\nHost a\n\tHostName=c\n User = u\n", "User first\nHost a\n User second\n HostName h\n",
		"Host * !a\n User other\nHost a\n User one\n", "Host a.* b?\n HostName %h.example\n Port 22\n", "Host \"a\" 'b'\n User \"two words\"\n", "Host a\n IdentityFile /k/one\n IdentityFile /k/two\nHost *\n IdentityFile /k/three\n",
		"Match host a\n User m\nMatch all\n Port 5\n", "Match originalhost a,b\n User m\n", "Match user nobody\n Port 9\nHost a\n User u\n", "Host a\n  User u # no comment\n", "Host a\nUser u\nHost b\nUser v\n", "Host a\r\n User u\r\n",
	} {
		for _, host := range []string{"a", "b", "a.x", "bb"} {
			all = append(all, asked{text, host})
		}
	}
	const script = `
import io, json, sys, paramiko
out = []
for a in json.load(sys.stdin):
    c = paramiko.SSHConfig()
    c.parse(io.StringIO(a["Text"]))
    h = c.lookup(a["Host"])
    out.append({"HostName": h.get("hostname", ""), "User": h.get("user", ""), "Port": h.get("port", ""), "Key": h.get("identityfile", [""])[0]})
print(json.dumps(out))`
	in, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(filepath.Join(cmp.Or(os.Getenv("MLFLOWFS_TESTENV"), "../../../.testenv"), "mlflow3", "bin", "python"), "-c", script)
	c.Stdin, c.Stderr = bytes.NewReader(in), os.Stderr
	said, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var theirs []means
	if err := json.Unmarshal(said, &theirs); err != nil || len(theirs) != len(all) {
		t.Fatal(string(said), err)
	}
	for i, a := range all {
		got := readConfig(a.Text, a.Host)
		ours := means{HostName: cmp.Or(got.hostName, a.Host), User: got.user, Port: got.port}
		if len(got.identityFiles) > 0 {
			ours.Key = got.identityFiles[0]
		}
		if d := gocmp.Diff(theirs[i], ours); d != "" {
			t.Errorf("%q, for %s: %s", a.Text, a.Host, d)
		}
	}
}
