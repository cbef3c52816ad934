package main

import (
	"slices"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// followed are the variables that MLflow's client, or a library of its, follows, and
// mlflowfs as they do; those of the settings are not among them. They reach the packages
// below through [ClientConfig.Env].
var followed = []struct {
	what  string
	names []string
}{
	{"who asks the tracking server", []string{"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "NETRC", "KUBECONFIG", "HOME"}},
	{"its workspace", []string{"MLFLOW_WORKSPACE", "MLFLOW_ENABLE_WORKSPACES"}},
	{"certificates", []string{"MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}},
	{"proxies, in lower case, too", []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"}},
	{"how often it is asked again, and how soon", []string{"MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER"}},
	{"redirects", []string{"MLFLOW_ALLOW_HTTP_REDIRECTS"}},
	{"where S3 is, and how buckets are named", []string{"MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_DEFAULT_REGION", "AWS_REGION"}},
	{"S3's credentials and certificates", []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_DEFAULT_PROFILE", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION", "MLFLOW_S3_EXPECTED_BUCKET_OWNER", "AWS_CA_BUNDLE", "MLFLOW_S3_IGNORE_TLS"}},
	{"Databricks and Unity Catalog", []string{"DATABRICKS_HOST", "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET", "DATABRICKS_AUTH_TYPE", "DATABRICKS_WORKSPACE_ID", "DATABRICKS_CONFIG_PROFILE", "DATABRICKS_CONFIG_FILE", "MLFLOW_UC_OSS_TOKEN"}},
	{"Google Cloud Storage", []string{"GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "STORAGE_EMULATOR_HOST"}},
	{"a MySQL database's password and certificates (PostgreSQL's are libpq's: PGPASSFILE, PGSSLMODE …)", []string{"MYSQL_PWD", "MLFLOW_MYSQL_SSL_CA", "MLFLOW_MYSQL_SSL_CERT", "MLFLOW_MYSQL_SSL_KEY"}},
	{"SFTP", []string{"SSH_AUTH_SOCK", "LOGNAME"}},
	{"HDFS", []string{"HADOOP_CONF_DIR", "HADOOP_HOME", "HADOOP_USER_NAME", "MLFLOW_KERBEROS_TICKET_CACHE", "MLFLOW_KERBEROS_USER", "KRB5CCNAME", "KRB5_CONFIG"}},
	{"Azure", []string{"AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN"}},
}

// The libraries that read the environment by themselves: the SDKs of AWS, Google and Azure
// (roles, web identities, metadata services), pgx (libpq's PG…), Go's crypto/x509 (SSL_CERT_FILE,
// SSL_CERT_DIR) and os.TempDir (TMPDIR), systemd's notification (NOTIFY_SOCKET,
// WATCHDOG_USEC).

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
	{"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "--quiet says whether download shows how far it is", nil},
	{"MLFLOW_ALLOW_FILE_STORE", "a FileStore is read, whatever it says", []string{"true", "1"}},
	{"MLFLOW_SQLALCHEMYSTORE_ECHO", "a database is read without SQLAlchemy, by 4 connections at most", nil},
	{"MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", "a database is read without SQLAlchemy, by 4 connections at most", nil},
	{"MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "a database is read without SQLAlchemy, by 4 connections at most", nil},
	{"MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE", "a database is read without SQLAlchemy, by 4 connections at most", nil},
	{"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "a database is read without SQLAlchemy, by 4 connections at most", nil},
	{"DATABRICKS_USERNAME", "a workspace is asked with a token, or as a service principal", nil},
	{"DATABRICKS_PASSWORD", "a workspace is asked with a token, or as a service principal", nil},
	{"DATABRICKS_INSECURE", "certificates of a workspace are looked at", nil},
	{"MLFLOW_ENABLE_DB_SDK", "a workspace is asked without Databricks' SDK", []string{"true", "1"}},
	{"MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT", "--timeout, or MLFLOW_HTTP_REQUEST_TIMEOUT, is for a workspace, too", nil},
	{"MLFLOW_DISABLE_DATABRICKS_SDK_FOR_RUN_ARTIFACTS", "artifacts of runs are read by URLs that the workspace signs", []string{"true", "1"}},
	{"MLFLOW_ENABLE_UC_NATIVE_MODEL_REGISTRY", "Unity Catalog is asked as MLflow's client asks it by default", []string{"false", "0"}},
	{"MLFLOW_USE_DATABRICKS_SDK_MODEL_ARTIFACTS_REPO_FOR_UC", "what answers decides how a model of Unity Catalog is read", nil},
	{"AWS_CREDENTIAL_EXPIRATION", "keys of the environment are sent until they are refused", nil},
	{"AWS_DATA_PATH", "it is where Python's SDK finds its own parts", nil},
	{"AWS_IMDS_USE_IPV6", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE says so", nil},
	{"AWS_METADATA_SERVICE_NUM_ATTEMPTS", "the metadata service is asked as often as AWS's SDK for Go does", nil},
	{"AWS_METADATA_SERVICE_TIMEOUT", "the metadata service is given the time that AWS's SDK for Go gives", nil},
	{"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT", "buckets in us-east-1 are asked for at that region's host", nil},
	{"AWS_STS_REGIONAL_ENDPOINTS", "STS is asked at the region's host", nil},
	{"BOTOCORE_TCP_KEEPALIVE", "a connection that is silent is probed after 10 s", nil},
	{"API_ENDPOINT_OVERRIDE", "STORAGE_EMULATOR_HOST names another host for GCS", nil},
	{"CLOUDSDK_CONTEXT_AWARE_CERTIFICATE_CONFIG_FILE_PATH", "GOOGLE_API_CERTIFICATE_CONFIG names the file", nil},
	{"CLOUDSDK_CONTEXT_AWARE_USE_CLIENT_CERTIFICATE", "GOOGLE_API_USE_CLIENT_CERTIFICATE says so", nil},
	{"SSLKEYLOGFILE", "keys are written to no file", nil},
	{"MLFLOW_PYARROW_EXTRA_CONF", "HADOOP_CONF_DIR has the configuration of HDFS", nil},
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
