package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/artifact/hdfs"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// ClientConfig is all that a command is told: each field is one of the table of
// settings, and has its default where nobody says another. It is read once.
type ClientConfig struct {
	File      string // the file of settings that is named
	Server    serverConfig
	Artifacts artifactConfig
	Cache     cacheConfig
	Mount     mountConfig
	Log       logConfig

	// Env is the environment, with what the settings say in its place: for what is
	// MLflow's, and the object stores' drivers', which look anew each time that they
	// look for credentials.
	Env rest.Env
}

// serverConfig says where MLflow is, and who asks it.
type serverConfig struct {
	TrackingURI string
	RegistryURI string // empty: at the tracking URI
	TokenFile   string
	HeaderFile  string
	Timeout     time.Duration // of a mount, for a request with its retries; 0: as MLflow's client has it
	Offline     bool
}

// artifactConfig says how bytes are reached.
type artifactConfig struct {
	Access       artifact.Access
	AllowAddress []string
	WebHDFS      []string
	AllowStore   []string
	MountURIs    []string
}

// cacheConfig says where bytes are kept, and how many.
type cacheConfig struct {
	Dir       string // noCache: in memory alone
	Size      size
	Memory    size
	FillLimit sizeOrAuto
	Parallel  int
}

// mountConfig says what is shown, and to whom.
type mountConfig struct {
	AllowOther    bool
	MetadataTTL   time.Duration
	StaleIfError  time.Duration
	IdleTimeout   time.Duration // 0: none
	NoPassthrough bool
	NoPush        bool
	MetricsAddr   string
	Pprof         bool
}

// logConfig says what is logged.
type logConfig struct {
	Level  slog.Level
	Format string
	File   string // empty: standard error
	FUSE   bool
}

// check says what of the configuration can't be.
func (c *ClientConfig) check() error {
	for _, err := range []error{c.Server.check(), c.Cache.check(), c.Mount.check()} {
		if err != nil {
			return usageError{err}
		}
	}
	if _, err := rest.ReadSettings(c.Env); err != nil { // MLflow's variables, and --allow-address
		return usageError{err}
	}
	if _, err := hdfs.ReadWays(c.Env); err != nil {
		return usageError{err}
	}
	_, err := c.allowed()
	return err
}

func (c *serverConfig) check() error {
	if c.Timeout < 0 {
		return fmt.Errorf("--timeout %v: it must not be less than 0", c.Timeout)
	}
	return nil
}

func (c *cacheConfig) check() error {
	switch {
	case c.Memory < leastMemory:
		least := size(leastMemory)
		return fmt.Errorf("--memory-limit %s: it must be at least %s", &c.Memory, &least)
	case c.Size < 16<<20 && c.Dir != noCache:
		return fmt.Errorf("--cache-size %s: it must be at least 16 MiB (--cache-dir none keeps nothing on disk)", &c.Size)
	case c.Parallel < 1 || c.Parallel > 256:
		return fmt.Errorf("--parallelism %d: it must be from 1 to 256", c.Parallel)
	case c.Dir == "":
		return errors.New("--cache-dir is empty: name a directory, or none")
	}
	return nil
}

func (c *mountConfig) check() error {
	switch {
	case c.MetadataTTL <= 0:
		return fmt.Errorf("--metadata-ttl %v: it must be more than 0", c.MetadataTTL)
	case c.StaleIfError < 0:
		return fmt.Errorf("--stale-if-error %v: it must not be less than 0", c.StaleIfError)
	case c.IdleTimeout < 0:
		return fmt.Errorf("--idle-timeout %v: it must not be less than 0", c.IdleTimeout)
	case c.Pprof && c.MetricsAddr == "":
		return errors.New("--pprof needs --metrics-addr, which says where")
	case c.MetricsAddr != "":
		_, err := loopbackOf(c.MetricsAddr)
		return err
	}
	return nil
}

// allowed is what a server's word may open: what its settings name, and where others
// don't see the mount what a user's own client would. What is shown below uri/ is among
// what is named.
func (c *ClientConfig) allowed() (*resolve.Allowed, error) {
	a, err := resolve.ParseAllowed(append(slices.Clone(c.Artifacts.AllowStore), c.Artifacts.MountURIs...))
	if err != nil {
		return nil, usageError{fmt.Errorf("--allow-store, --mount-uris: %w", err)}
	}
	a.Own = !c.Mount.AllowOther
	return a, nil
}

// stuck is how long a request of the kernel may wait until something is wrong.
func (c *ClientConfig) stuck() time.Duration {
	if c.Server.Timeout == 0 {
		return 6 * time.Minute
	}
	return 3 * c.Server.Timeout
}

// userDir is the directory of a kind that the user's environment names (XDG Base
// Directory Specification), else the usual one in the home directory; empty: there is
// neither.
func userDir(env rest.Env, variable, usual string) string {
	if dir := env(variable); filepath.IsAbs(dir) {
		return dir
	}
	if home := env("HOME"); home != "" {
		return filepath.Join(home, usual)
	}
	return ""
}
