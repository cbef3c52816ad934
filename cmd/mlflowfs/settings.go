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
	variable string
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
	{
		name: "config", variable: "MLFLOWFS_CONFIG", takes: client,
		help:  "file of settings (default: mlflowfs/config.yaml below your configuration directory, else " + systemConfig + ")",
		field: func(c *ClientConfig) any { return &c.File },
	}, {
		name: "tracking-uri", variable: "MLFLOW_TRACKING_URI", takes: client,
		help:  "http(s)://host:port, sqlite:///file.db, or a FileStore directory; default ./mlruns where it holds experiments, else sqlite:///mlflow.db",
		field: func(c *ClientConfig) any { return &c.Server.TrackingURI },
	}, {
		name: "registry-uri", variable: "MLFLOW_REGISTRY_URI", takes: client,
		help:  "where the model registry is, if not at the tracking URI",
		field: func(c *ClientConfig) any { return &c.Server.RegistryURI },
	}, {
		name: "token-file", variable: rest.TokenFileVariable, takes: client,
		help:  "file that holds the token for the tracking server, read anew when it changes",
		field: func(c *ClientConfig) any { return &c.Server.TokenFile },
	}, {
		name: "header-file", variable: rest.HeaderFileVariable, takes: client,
		help:  "file of headers for the tracking server, one 'Name: value' a line, read anew when it changes",
		field: func(c *ClientConfig) any { return &c.Server.HeaderFile },
	}, {
		name: "timeout", variable: "MLFLOWFS_TIMEOUT", also: rest.TimeoutVariable, usual: "30s", brief: "0s", takes: mounting,
		help:  "how long a server may be silent until what waits for it fails; in seconds, if no unit is named; 0: as long as for MLflow's client, which asks again for minutes",
		field: func(c *ClientConfig) any { return &c.Server.Timeout },
	}, {
		name: "offline", variable: rest.OfflineVariable, usual: "false", takes: client,
		help:  "use no network: show what was listed before, and read what the cache has",
		field: func(c *ClientConfig) any { return &c.Server.Offline },
	}, {
		name: "artifact-access", variable: "MLFLOWFS_ARTIFACT_ACCESS", usual: string(resolve.Auto), takes: client, words: texts(accesses),
		help:  "auto, or one way to artifacts: direct (with this client's credentials), presigned (URLs that the server signs), server (through the server)",
		field: func(c *ClientConfig) any { return choice[artifact.Access]{&c.Artifacts.Access, accesses} },
	}, {
		name: "allow-address", variable: rest.AllowAddressVariable, takes: client,
		help:  "what a server's signed URLs and redirects may lead to on this machine or an inner network: host:port, a host, an address, or a network such as 10.0.0.0/8 (comma-separated)",
		field: func(c *ClientConfig) any { return &c.Artifacts.AllowAddress },
	}, {
		name: "allow-store", variable: "MLFLOWFS_ALLOW_STORE", takes: mounting,
		help:  "with --allow-other: buckets, or directories in them, that this client's own keys open where the server names them, such as s3://bucket or gs://bucket/dir (comma-separated)",
		field: func(c *ClientConfig) any { return &c.Artifacts.AllowStore },
	}, {
		name: "mount-uris", variable: "MLFLOWFS_MOUNT_URIS", takes: mounting,
		help:  "buckets, or directories in them, to show below uri/, such as s3://bucket or gs://bucket/dir (comma-separated)",
		field: func(c *ClientConfig) any { return &c.Artifacts.MountURIs },
	}, {
		name: "cache-dir", variable: "MLFLOWFS_CACHE_DIR", usual: "~/.cache/mlflowfs", here: defaultCacheDir, takes: caching,
		help:  "directory that keeps what was read, for all mounts of this user; none: memory alone",
		field: func(c *ClientConfig) any { return &c.Cache.Dir },
	}, {
		name: "cache-size", variable: "MLFLOWFS_CACHE_SIZE", usual: "10 GiB", takes: caching,
		help:  "disk for it, at most; a twentieth of the disk is left free in any case",
		field: func(c *ClientConfig) any { return &c.Cache.Size },
	}, {
		name: "parallelism", variable: "MLFLOWFS_PARALLELISM", usual: "8", takes: caching,
		help:  "requests that fetch ahead at once, for one file; four times as many for all",
		field: func(c *ClientConfig) any { return &c.Cache.Parallel },
	}, {
		name: "memory-limit", variable: "MLFLOWFS_MEMORY_LIMIT", usual: "a quarter of the machine, at most 1 GiB", here: defaultMemory, takes: mounting,
		help:  "memory for everything: blocks, windows, buffers",
		field: func(c *ClientConfig) any { return &c.Cache.Memory },
	}, {
		name: "fill-limit", variable: "MLFLOWFS_FILL_LIMIT", usual: auto, takes: mounting,
		help:  "files up to this size are fetched whole once a program maps them, jumps in them, or touches them in a model; 0: never; auto: half of what the cache can hold",
		field: func(c *ClientConfig) any { return &c.Cache.FillLimit },
	}, {
		name: "allow-other", variable: "MLFLOWFS_ALLOW_OTHER", usual: "false", takes: mounting,
		help:  "show the mount to all users of this machine",
		field: func(c *ClientConfig) any { return &c.Mount.AllowOther },
	}, {
		name: "metadata-ttl", variable: "MLFLOWFS_METADATA_TTL", usual: "10s", takes: mounting,
		help:  "how long an answer of the server is believed; six times as long for what is finished",
		field: func(c *ClientConfig) any { return &c.Mount.MetadataTTL },
	}, {
		name: "stale-if-error", variable: "MLFLOWFS_STALE_IF_ERROR", usual: "24h", takes: mounting,
		help:  "how old a listing may be that is shown while its server can't be asked; 0: none is",
		field: func(c *ClientConfig) any { return &c.Mount.StaleIfError },
	}, {
		name: "no-passthrough", variable: "MLFLOWFS_NO_PASSTHROUGH", usual: "false", takes: mounting,
		help:  "have the kernel read no file of the cache by itself",
		field: func(c *ClientConfig) any { return &c.Mount.NoPassthrough },
	}, {
		name: "no-push", variable: "MLFLOWFS_NO_PUSH", usual: "false", takes: mounting,
		help:  "give the kernel no pages before it asks for them",
		field: func(c *ClientConfig) any { return &c.Mount.NoPush },
	}, {
		name: "metrics-addr", variable: "MLFLOWFS_METRICS_ADDR", takes: mounting,
		help:  "serve Prometheus metrics at this address, such as :9420; with no host: to this machine alone",
		field: func(c *ClientConfig) any { return &c.Mount.MetricsAddr },
	}, {
		name: "pprof", variable: "MLFLOWFS_PPROF", usual: "false", takes: mounting,
		help:  "serve profiles there, too (/debug/pprof/)",
		field: func(c *ClientConfig) any { return &c.Mount.Pprof },
	}, {
		name: "debug-fuse", variable: "MLFLOWFS_DEBUG_FUSE", usual: "false", takes: mounting,
		help:  "log each request of the kernel (with --log-level debug)",
		field: func(c *ClientConfig) any { return &c.Log.FUSE },
	}, {
		name: "log-level", variable: "MLFLOWFS_LOG_LEVEL", usual: "info", brief: "warn", takes: client, words: []string{"debug", "info", "warn", "error"},
		help:  "debug, info, warn or error",
		field: func(c *ClientConfig) any { return &c.Log.Level },
	}, {
		name: "log-format", variable: "MLFLOWFS_LOG_FORMAT", usual: "text", takes: client, words: logFormats,
		help:  "text or json",
		field: func(c *ClientConfig) any { return choice[string]{&c.Log.Format, logFormats} },
	}, {
		name: "log-file", variable: "MLFLOWFS_LOG_FILE", takes: mounting,
		help:  "write the log to this file, 10 MiB of it and three older ones, and not to standard error (with --daemon: a file below your state directory)",
		field: func(c *ClientConfig) any { return &c.Log.File },
	},
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
	if s.also == "" {
		return []string{s.variable}
	}
	return []string{s.variable, s.also}
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
