package main

import (
	"log/slog"
	osuser "os/user"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/artifact/azure"
	"github.com/mlflowfs/mlflowfs/resolve/artifact/gcs"
	"github.com/mlflowfs/mlflowfs/resolve/artifact/hdfs"
	"github.com/mlflowfs/mlflowfs/resolve/artifact/s3"
	"github.com/mlflowfs/mlflowfs/resolve/artifact/sftp"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// buckets are the object stores that are linked in, by the schemes of their
// URIs. Each takes its credentials from its own environment and profiles, as
// its SDK and MLflow do.
func (c *ClientConfig) buckets(set rest.Settings, log *slog.Logger) map[string]artifact.OpenBucket {
	env, home := c.Env, c.Env("HOME") // without one, its files are not there
	aws := s3.Driver{Settings: set, Env: env, Home: home}
	blobs := azure.Driver{Settings: set, Env: env, Log: log}
	return map[string]artifact.OpenBucket{
		"s3":    aws.Open,
		"r2":    aws.OpenHosted(s3.R2, false),
		"b2":    aws.OpenHosted(s3.B2, true),
		"gs":    gcs.Driver{Settings: set, Env: env, Home: home, Log: log}.Open,
		"wasbs": blobs.Open(azure.Blobs),
		"abfss": blobs.Open(azure.DataLake),
	}
}

// hosts are the protocols of hosts' file systems that are linked in, by the schemes of
// their URIs. Each takes its keys and its user from where its own client looks.
func (c *ClientConfig) hosts(set rest.Settings, log *slog.Logger) map[string]artifact.OpenHost {
	user := ""
	if u, err := osuser.Current(); err == nil {
		user = u.Username
	}
	hadoop := hdfs.Driver{Settings: set, Env: c.Env, User: user, Log: log}
	return map[string]artifact.OpenHost{
		"sftp": sftp.Driver{Settings: set, Env: c.Env, Home: c.Env("HOME"), User: user}.Open,
		"hdfs": hadoop.Open, "webhdfs": hadoop.OpenWeb("http"), "swebhdfs": hadoop.OpenWeb("https"),
	}
}

// lent are those that are opened with credentials that a registry lends, by the schemes
// of the URIs.
func (c *ClientConfig) lent(set rest.Settings, log *slog.Logger) map[string]artifact.OpenLent {
	env, home := c.Env, c.Env("HOME")
	aws := s3.Driver{Settings: set, Env: env, Home: home}
	blobs := azure.Driver{Settings: set, Env: env, Log: log}.OpenLent
	return map[string]artifact.OpenLent{
		"s3":    aws.OpenLent,
		"r2":    aws.OpenLentR2,
		"gs":    gcs.Driver{Settings: set, Env: env, Home: home, Log: log}.OpenLent,
		"wasbs": blobs, "abfss": blobs,
	}
}
