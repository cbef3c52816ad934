package main

import (
	"slices"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// unhonoured are the variables that MLflow's client, or a library of its, follows on the
// way to what a mount shows, and mlflowfs does not; doctor names those that are set. A
// variable that only writes, serves or trains is not among them.
var unhonoured = []struct {
	name, why string
	but       []string // values that are honoured
}{
	{"MLFLOW_TRACKING_AUTH", "plug-ins are Python; only kubernetes and kubernetes-namespaced are built in, and --header-file sends what another proxy wants", []string{"kubernetes", "kubernetes-namespaced"}},
	{"MLFLOW_WORKSPACE_STORE_URI", "workspaces are the tracking server's", nil},
	{"MLFLOW_READ_REPLICA_BACKEND_STORE_URI", "reads go to the tracking URI: name the replica there", nil},
	{"MLFLOW_ENABLE_MULTIPART_DOWNLOAD", "files are always read in pieces, where their store can", nil},
	{"MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "--artifact-access says whether presigned URLs are used", nil},
	{"MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE", "how much is asked for at a time follows the reader", nil},
	{"MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE", "how much is asked for at a time follows the reader", nil},
	{"MLFLOW_GCS_DOWNLOAD_CHUNK_SIZE", "how much is asked for at a time follows the reader", nil},
	{"MLFLOW_DOWNLOAD_CHUNK_TIMEOUT", "--timeout, or MLFLOW_HTTP_REQUEST_TIMEOUT, is for pieces of files, too", nil},
	{"MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "--timeout, or MLFLOW_HTTP_REQUEST_TIMEOUT, is for artifacts, too", nil},
	{"MLFLOW_HTTP_POOL_CONNECTIONS", "--parallelism says how many requests there are at once", nil},
	{"MLFLOW_HTTP_POOL_MAXSIZE", "--parallelism says how many requests there are at once", nil},
	{"MLFLOW_HTTP_TCP_KEEPALIVE", "a connection that is silent is probed after 10 s", nil},
	{"MLFLOW_HTTP_TCP_KEEPALIVE_COUNT", "a connection that is silent is probed 4 times", nil},
	{"MLFLOW_HTTP_TCP_KEEPALIVE_IDLE", "a connection that is silent is probed after 10 s", nil},
	{"MLFLOW_HTTP_TCP_KEEPALIVE_INTERVAL", "a connection that is silent is probed each 5 s", nil},
	{"MLFLOW_KERBEROS_TICKET_CACHE", "hdfs:// is not read", nil},
	{"MLFLOW_KERBEROS_USER", "hdfs:// is not read", nil},
	{"MLFLOW_MYSQL_SSL_CERT", "databases are read through a tracking server", nil},
}

// checkVariables names the variables that are set and not honoured.
func checkVariables(env rest.Env) (out []finding) {
	for _, v := range unhonoured {
		if value := env(v.name); value != "" && !slices.Contains(v.but, value) {
			out = append(out, finding{"variable", lesser, v.name + " is not honoured: " + v.why, ""})
		}
	}
	return out
}
