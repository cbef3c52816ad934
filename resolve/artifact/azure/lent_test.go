package azure

import (
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestLentSignatureIsSentAlone fails when a container that is opened with a signature that
// is lent is asked with a key or a token of the client's own, or at a host that is none of
// Azure's, or for more than one directory at a time; or when what is lent for another cloud opens one.
func TestLentSignatureIsSentAlone(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	env := map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountName=mine;AccountKey=bWluZQ==", "AZURE_STORAGE_ACCESS_KEY": "bWluZQ==", "AZURE_STORAGE_SAS_TOKEN": "sig=mine"}
	d := Driver{Settings: rest.Settings{Silence: time.Second}, Env: func(name string) string { return env[name] }, transport: r}
	for _, place := range []string{"box@acc.dfs.core.windows.net", "box@acc.blob.core.windows.net"} {
		b, err := d.OpenLent(t.Context(), place, rest.Lent{SAS: token})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := blobOf(b, "a").List(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		q := r.last.URL.Query()
		if r.last.URL.Host != "acc.blob.core.windows.net" || q.Get("sig") != "s3cret" || r.last.Header.Get("Authorization") != "" || strings.Contains(r.last.URL.String(), "mine") || q.Get("delimiter") != "/" || q.Get("prefix") != "a/" {
			t.Errorf("%s: %v %v", place, r.last.URL, r.last.Header)
		}
	}
	for _, place := range []string{"box@acc.evil.example", "box@evil.example/.blob.core.windows.net", "box"} {
		if _, err := d.OpenLent(t.Context(), place, rest.Lent{SAS: token}); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", place, err)
		}
	}
	for _, l := range []rest.Lent{{}, {Key: "k", Secret: "s"}, {Token: "t"}} {
		if _, err := d.OpenLent(t.Context(), "box@acc.dfs.core.windows.net", l); err == nil {
			t.Error("a container is opened with what is no signature")
		}
	}
}
