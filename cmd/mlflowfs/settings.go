package main

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// setting is what may be said of one field of the configuration. Its name is that of a
// flag, of a key of the file of settings, and of an option of mount(8).
type setting struct {
	name     string
	variable string                    // empty: MLFLOWFS_ and the name
	also     string                    // a variable of MLflow's that says the same
	usual    string                    // the default
	brief    string                    // the default of commands that end by themselves, where that is another
	here     func(env rest.Env) string // the default of this machine, of which usual is a description
	takes    scope                     // which commands take it
	help     string                    // with the unit of a number alone
	field    func(c *ClientConfig) any // see [value]
	words    []string                  // what it may be, for completions; nil: anything
}

// scope is a set of commands, and of the settings that they take: each has those of the
// scopes before it.
type scope int

const (
	nothing  scope = iota // a command that asks no server
	client                // one that asks one
	caching               // one that uses the cache's directory
	mounting              // one that mounts, or says how a mount would be
)

// scopes names them in docs/configuration.md.
var scopes = map[scope]string{client: "all", caching: "cache", mounting: "mount"}

// settings is the one table of them. Flags and their completion, variables, the file of
// settings, the options of mount(8), `config show`, the man pages and
// docs/configuration.md come from it.
var settings = []*setting{
	{name: "config", takes: client, field: func(c *ClientConfig) any { return &c.File }, help: "file of settings (default: mlflowfs/config.yaml below your configuration directory, else " + systemConfig + ")"},

	// Where MLflow is, and who asks it
	{name: "tracking-uri", variable: "MLFLOW_TRACKING_URI", takes: client, field: func(c *ClientConfig) any { return &c.Server.TrackingURI }, help: "http(s)://host:port, a database (sqlite:///file.db, postgresql://…, mysql://…, mssql://…), a FileStore directory, or databricks or databricks://profile; default ./mlruns where it holds experiments, else sqlite:///mlflow.db"},
	{name: "registry-uri", variable: "MLFLOW_REGISTRY_URI", takes: client, field: func(c *ClientConfig) any { return &c.Server.RegistryURI }, help: "where the model registry is, if not at the tracking URI: the same, or a Unity Catalog at uc:http(s)://host:port, databricks-uc or databricks-uc://profile"},
	{name: "token-file", takes: client, field: func(c *ClientConfig) any { return &c.Server.TokenFile }, help: "file that holds the token for the tracking server, read anew when it changes"},
	{name: "header-file", takes: client, field: func(c *ClientConfig) any { return &c.Server.HeaderFile }, help: "file of headers for the tracking server, one 'Name: value' a line, read anew when it changes"},
	{name: "timeout", also: rest.TimeoutVariable, usual: "30s", brief: "0s", takes: mounting, field: func(c *ClientConfig) any { return &c.Server.Timeout }, help: "how long a server may be silent until what waits for it fails; in seconds, if no unit is named; 0: as long as for MLflow's client, which asks again for minutes"},
	{name: "offline", takes: client, field: func(c *ClientConfig) any { return &c.Server.Offline }, help: "use no network: show what was listed before, and read what the cache has"},

	// How bytes are reached
	{name: "artifact-access", usual: string(resolve.Auto), takes: client, words: texts(accesses), field: func(c *ClientConfig) any { return choice[artifact.Access]{&c.Artifacts.Access, accesses} }, help: "auto, or one way to artifacts: direct (with this client's credentials), presigned (URLs that the server signs), server (through the server)"},
	{name: "allow-address", takes: client, field: func(c *ClientConfig) any { return &c.Artifacts.AllowAddress }, help: "what a server's signed URLs and redirects may lead to on this machine or an inner network: host:port, a host, an address, or a network such as 10.0.0.0/8 (comma-separated)"},
	{name: "allow-store", takes: client, field: func(c *ClientConfig) any { return &c.Artifacts.AllowStore }, help: "hosts, or directories there, that this client's own keys open where the server names them, such as sftp://user@host/dir or hdfs://namenode; with --allow-other, buckets, too, such as s3://bucket or gs://bucket/dir (comma-separated)"},
	{name: "webhdfs", takes: client, field: func(c *ClientConfig) any { return &c.Artifacts.WebHDFS }, help: "clusters of HDFS of which only the HTTP port can be reached, such as hdfs://namenode:8020=webhdfs://namenode:9870, or swebhdfs:// for HTTPS (comma-separated)"},
	{name: "mount-uris", takes: mounting, field: func(c *ClientConfig) any { return &c.Artifacts.MountURIs }, help: "buckets and hosts, or directories there, to show below uri/, such as s3://bucket, gs://bucket/dir or sftp://user@host/dir (comma-separated)"},

	// Where bytes are kept
	{name: "cache-dir", usual: "~/.cache/mlflowfs", here: defaultCacheDir, takes: caching, field: func(c *ClientConfig) any { return &c.Cache.Dir }, help: "directory that keeps what was read, for all mounts of this user; none: memory alone"},
	{name: "cache-size", usual: "10 GiB", takes: caching, field: func(c *ClientConfig) any { return &c.Cache.Size }, help: "disk for it, at most; a twentieth of the disk is left free in any case"},
	{name: "parallelism", usual: "8", takes: caching, field: func(c *ClientConfig) any { return &c.Cache.Parallel }, help: "requests that fetch ahead at once, for one file; four times as many for all"},
	{name: "memory-limit", usual: "a quarter of the machine, at most 1 GiB", here: defaultMemory, takes: mounting, field: func(c *ClientConfig) any { return &c.Cache.Memory }, help: "memory for everything: blocks, windows, buffers"},
	{name: "fill-limit", usual: auto, takes: mounting, field: func(c *ClientConfig) any { return &c.Cache.FillLimit }, help: "files up to this size are fetched whole once a program maps them, jumps in them, or touches them in a model; 0: never; auto: half of what the cache can hold"},

	// What is shown, and to whom
	{name: "allow-other", takes: mounting, field: func(c *ClientConfig) any { return &c.Mount.AllowOther }, help: "show the mount to all users of this machine"},
	{name: "metadata-ttl", usual: "10s", takes: mounting, field: func(c *ClientConfig) any { return &c.Mount.MetadataTTL }, help: "how long an answer of the server is believed; six times as long for what is finished"},
	{name: "idle-timeout", usual: "0s", takes: mounting, field: func(c *ClientConfig) any { return &c.Mount.IdleTimeout }, help: "unmount when no program has used the mount for so long; 0: never"},
	{name: "stale-if-error", usual: "24h", takes: mounting, field: func(c *ClientConfig) any { return &c.Mount.StaleIfError }, help: "how old a listing may be that is shown while its server can't be asked; 0: none is"},
	{name: "no-passthrough", takes: mounting, field: func(c *ClientConfig) any { return &c.Mount.NoPassthrough }, help: "have the kernel read no file of the cache by itself"},
	{name: "no-push", takes: mounting, field: func(c *ClientConfig) any { return &c.Mount.NoPush }, help: "give the kernel no pages before it asks for them"},
	{name: "metrics-addr", takes: mounting, field: func(c *ClientConfig) any { return &c.Mount.MetricsAddr }, help: "serve Prometheus metrics at this address, such as :9420; with no host: to this machine alone"},
	{name: "pprof", takes: mounting, field: func(c *ClientConfig) any { return &c.Mount.Pprof }, help: "serve profiles there, too (/debug/pprof/)"},

	// What is logged
	{name: "debug-fuse", takes: mounting, field: func(c *ClientConfig) any { return &c.Log.FUSE }, help: "log each request of the kernel (with --log-level debug)"},
	{name: "log-level", usual: "info", brief: "warn", takes: client, words: []string{"debug", "info", "warn", "error"}, field: func(c *ClientConfig) any { return &c.Log.Level }, help: "debug, info, warn or error"},
	{name: "log-format", usual: "text", takes: client, words: logFormats, field: func(c *ClientConfig) any { return choice[string]{&c.Log.Format, logFormats} }, help: "text or json"},
	{name: "log-file", takes: mounting, field: func(c *ClientConfig) any { return &c.Log.File }, help: "write the log to this file, 10 MiB of it and three older ones, and not to standard error (with --daemon: a file below your state directory)"},
}

const systemConfig = "/etc/mlflowfs/config.yaml"

var (
	accesses   = []artifact.Access{resolve.Auto, artifact.Direct, artifact.Presigned, artifact.Server}
	logFormats = []string{"text", "json"}
)

func texts[T ~string](of []T) (out []string) {
	for _, t := range of {
		out = append(out, string(t))
	}
	return out
}

// settingOf is the setting of a name; nil: there is none.
func settingOf(name string) *setting {
	for _, s := range settings {
		if s.name == name {
			return s
		}
	}
	return nil
}

// taken are the settings that the commands of a scope take.
func taken(by scope) []*setting {
	return slices.DeleteFunc(slices.Clone(settings), func(s *setting) bool { return s.takes > by })
}

// settingNames are the settings that a file may hold, sorted.
func settingNames() (names []string) {
	for _, s := range settings {
		if s.name != "config" {
			names = append(names, s.name)
		}
	}
	slices.Sort(names)
	return names
}

// variables are those that give it a value, the first that is set first.
func (s *setting) variables() []string {
	own := s.variable
	if own == "" {
		own = "MLFLOWFS_" + strings.ReplaceAll(strings.ToUpper(s.name), "-", "_")
	}
	if s.also == "" {
		return []string{own}
	}
	return []string{own, s.also}
}

// fallback is the default for the commands of a scope.
func (s *setting) fallback(takes scope, env rest.Env) string {
	switch {
	case s.here != nil:
		return s.here(env)
	case s.brief != "" && (takes == client || takes == caching):
		return s.brief
	}
	return s.usual
}

// flag makes the flag of the setting, with its default.
func (s *setting) flag(c *ClientConfig, takes scope) *pflag.Flag {
	v := &value{field: s.field(c)}
	f := &pflag.Flag{Name: s.name, Usage: s.help + " [$" + strings.Join(s.variables(), ", $") + "]", Value: v}
	if f.DefValue = s.usual; s.here == nil {
		f.DefValue = s.fallback(takes, nil)
	}
	if s.isSwitch() {
		f.NoOptDefVal = "true"
	}
	return f
}

// isSwitch tells whether the setting is true where it is named without a value.
func (s *setting) isSwitch() bool {
	_, is := s.field(&ClientConfig{}).(*bool)
	return is
}
