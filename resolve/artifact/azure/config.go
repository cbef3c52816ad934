package azure

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Config is what containers are opened with: the first that is not empty, and
// with none of them, Azure's default credential (environment, managed identity,
// az login).
type Config struct {
	ConnectionString string // names an account of its own, whatever the URI says
	AccessKey        string
	SASToken         string
	SASLast          bool // the token comes behind the default credential
}

// FromEnv reads the configuration for the URIs of a scheme. For a data lake,
// MLflow takes a token alone (azure_data_lake_artifact_repo); for wasbs:// it
// takes the connection string and the key, and no token (azure_blob_artifact_repo):
// ours stands where MLflow would have nothing.
func FromEnv(env rest.Env, scheme string) Config {
	token := strings.TrimPrefix(env("AZURE_STORAGE_SAS_TOKEN"), "?")
	if scheme == DataLake {
		return Config{SASToken: token}
	}
	return Config{ConnectionString: env("AZURE_STORAGE_CONNECTION_STRING"), AccessKey: env("AZURE_STORAGE_ACCESS_KEY"), SASToken: token, SASLast: true}
}

// The schemes of URIs.
const (
	Blobs    = "wasbs"
	DataLake = "abfss"
)

// ours are the hosts of Azure's clouds behind an account's name: also those of a
// private link, of an account in a DNS zone, and OneLake. A tracking server may
// have chosen the URI, so that no other host may be asked.
var ours = regexp.MustCompile(`^(?:privatelink\.)?(?:z[0-9]{1,2}\.)?(blob|dfs)\.(?:core\.windows\.net|core\.chinacloudapi\.cn|core\.usgovcloudapi\.net|storage\.azure\.net|fabric\.microsoft\.com)$`)

// address gives a container's name, its account, and the URL at which its blobs
// are: what lies in a data lake has a blob address, too. place is
// <container>@<account>.<blob or dfs>.core.windows.net, or of another cloud.
func address(place string) (container, account, url string, err error) {
	container, host, _ := strings.Cut(place, "@")
	account, suffix, _ := strings.Cut(host, ".")
	if container == "" || account == "" || suffix == "" || strings.ContainsAny(place, "/?#:") {
		return "", "", "", fmt.Errorf("the URI must name its container and its account: <container>@<account>.blob.core.windows.net, and not %q", place)
	}
	m := ours.FindStringSubmatchIndex(suffix)
	if m == nil {
		return "", "", "", fmt.Errorf("the host %s is not of Azure's clouds (such as blob.core.windows.net), and credentials are sent to no other", host)
	}
	return container, account, "https://" + account + "." + suffix[:m[2]] + "blob" + suffix[m[3]:] + "/" + container, nil
}
