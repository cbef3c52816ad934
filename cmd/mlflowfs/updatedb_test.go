package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDoctorKnowsUpdatedb fails when doctor does not say that updatedb walks through
// mounts in the night, or says so although it leaves them out.
func TestDoctorKnowsUpdatedb(t *testing.T) {
	t.Parallel()
	for conf, want := range map[string]int{
		"PRUNEPATHS=\"/tmp\"\nPRUNEFS=\"NFS afs fuse.sshfs\"\n": lesser,
		"PRUNEFS = \"NFS fuse.mlflowfs afs\"\n":                 well,
		"# PRUNEFS=\"fuse.mlflowfs\"\n":                         lesser,
		"":                                                      lesser,
	} {
		file := filepath.Join(t.TempDir(), "updatedb.conf")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := checkUpdatedb(file); got.state != want || want == lesser && got.mend == "" {
			t.Errorf("%q: %+v", conf, got)
		}
	}
	if got := checkUpdatedb("/no/such/file"); got.state != well {
		t.Errorf("%+v", got)
	}
}
