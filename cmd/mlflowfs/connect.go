package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/answers"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// connection is the flags that say where MLflow is and how its artifacts are
// reached.
type connection struct {
	trackingURI string
	registryURI string
	access      accessFlag
	addresses   []string // --allow-address
	tokenFile   string
	headerFile  string
	logLevel    string
	logFormat   string
	level       slog.LevelVar // of the log, now

	// Of a daemon:
	timeout time.Duration // 0: MLFLOW_HTTP_REQUEST_TIMEOUT, or its default
	offline bool
	logFile string           // empty: standard error
	answers *answers.Answers // nil: no answer is kept
}

func (c *connection) bind(set *settings, logLevel string) {
	fl := set.fl
	c.access = accessFlag(resolve.Auto)
	fl.StringVar(&c.trackingURI, "tracking-uri", "", "http(s)://host:port, sqlite:///file.db, or a FileStore directory; default ./mlruns where it holds experiments, else sqlite:///mlflow.db")
	set.bind("tracking-uri", "MLFLOW_TRACKING_URI")
	fl.StringVar(&c.registryURI, "registry-uri", "", "where the model registry is, if not at the tracking URI")
	set.bind("registry-uri", "MLFLOW_REGISTRY_URI")
	fl.StringVar(&c.tokenFile, "token-file", "", "file that holds the token for the tracking server, read anew when it changes")
	set.bind("token-file", rest.TokenFileVariable)
	fl.StringVar(&c.headerFile, "header-file", "", "file of headers for the tracking server, one 'Name: value' a line, read anew when it changes")
	set.bind("header-file", rest.HeaderFileVariable)
	fl.Var(&c.access, "artifact-access", "auto, or one way to artifacts: direct (with this client's credentials), presigned (URLs that the server signs), server (through the server)")
	set.bind("artifact-access", "MLFLOWFS_ARTIFACT_ACCESS")
	fl.StringSliceVar(&c.addresses, "allow-address", nil, "what a server's signed URLs and redirects may lead to on this machine or an inner network: host:port, a host, an address, or a network such as 10.0.0.0/8 (comma-separated)")
	set.bind("allow-address", rest.AllowAddressVariable)
	fl.StringVar(&c.logLevel, "log-level", logLevel, "debug, info, warn or error")
	set.bind("log-level", "MLFLOWFS_LOG_LEVEL")
	fl.StringVar(&c.logFormat, "log-format", "text", "text or json")
	set.bind("log-format", "MLFLOWFS_LOG_FORMAT")
}

// accessFlag is the value of --artifact-access.
type accessFlag artifact.Access

var _ pflag.Value = (*accessFlag)(nil)

func (a *accessFlag) String() string { return string(*a) }
func (a *accessFlag) Type() string   { return "access" }

func (a *accessFlag) Set(v string) error {
	switch x := artifact.Access(v); x {
	case resolve.Auto, artifact.Direct, artifact.Presigned, artifact.Server:
		*a = accessFlag(x)
		return nil
	}
	return fmt.Errorf("%q is no way to artifacts: it must be auto, direct, presigned or server", v)
}

// log makes the log that the flags ask for.
func (c *connection) log() (log *slog.Logger, err error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.logLevel)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level %q: it must be debug, info, warn or error", c.logLevel)}
	}
	c.level.Set(level)
	var out io.Writer = os.Stderr
	if c.logFile != "" {
		if out, err = rotated(c.logFile); err != nil {
			return nil, err
		}
	}
	opt := &slog.HandlerOptions{Level: &c.level}
	switch c.logFormat {
	case "text":
		return newLog(out, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, opt) }), nil
	case "json":
		return newLog(out, func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, opt) }), nil
	}
	return nil, usageError{fmt.Errorf("--log-format %q: it must be text or json", c.logFormat)}
}

// levels has SIGUSR1 make the log tell more, by a level each time, and SIGUSR2
// bring back what the flags ask for.
func (c *connection) levels(log *slog.Logger) {
	asked := c.level.Level()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range signals {
			if s == syscall.SIGUSR2 {
				c.level.Set(asked)
			} else {
				c.level.Set(max(c.level.Level()-(slog.LevelInfo-slog.LevelDebug), slog.LevelDebug))
			}
			log.Log(context.Background(), c.level.Level(), "the log's level was changed by a signal", "now", c.level.Level())
		}
	}()
}

// stores are the open stores of a connection.
type stores struct {
	*resolve.Resolver
	tracking, registry meta.Store   // nil where none was needed
	client             *rest.Client // nil where the tracking store is no server
	clients            []*rest.Client
}

// traffic is what was sent to the tracking server and to the registry.
func (s *stores) traffic() (t rest.Traffic) {
	for _, c := range s.clients {
		one := c.Traffic()
		for i := range t.Requests {
			t.Requests[i] += one.Requests[i]
			t.Retries[i] += one.Retries[i]
		}
	}
	return t
}

// remarks are what the tracking store and the registry tell of themselves.
func (s *stores) remarks() (out []meta.Remark) {
	for _, st := range []meta.Store{s.tracking, s.registry} {
		if st != nil {
			out = append(out, st.Tell()...)
		}
	}
	return out
}

func (s *stores) close() {
	for _, st := range []meta.Store{s.tracking, s.registry} {
		if st != nil {
			st.Close()
		}
	}
}

// env is the environment, with what flags say in its place.
func (c *connection) env(name string) string {
	switch {
	case (name == rest.TimeoutVariable || name == rest.WholeVariable) && c.timeout > 0:
		return strconv.FormatFloat(c.timeout.Seconds(), 'f', -1, 64)
	case name == rest.WholeVariable && c.timeout == 0:
		return "" // of a mount, which this is none
	case name == rest.OfflineVariable && c.offline:
		return "true"
	case name == rest.AllowAddressVariable && len(c.addresses) > 0:
		return strings.Join(c.addresses, ",")
	case name == "MLFLOW_TRACKING_URI" && c.trackingURI != "":
		return c.trackingURI
	case name == "MLFLOW_REGISTRY_URI" && c.registryURI != "":
		return c.registryURI
	case name == rest.TokenFileVariable && c.tokenFile != "":
		return c.tokenFile
	case name == rest.HeaderFileVariable && c.headerFile != "":
		return c.headerFile
	}
	return os.Getenv(name)
}

// open opens the stores and makes a resolver of them; allowed is
// [resolve.Options.Allowed] where a server is asked. Where no tracking URI is
// given, the default store is opened only if it is needed: a storage URI needs
// none.
func (c *connection) open(ttl time.Duration, needed bool, allowed *resolve.Allowed, log *slog.Logger) (*stores, error) {
	env := c.env
	set, err := rest.ReadSettings(env)
	if err != nil {
		return nil, usageError{err}
	}
	web, err := rest.NewWebClient(env, log)
	if err != nil {
		return nil, err
	}
	s := &stores{clients: []*rest.Client{web}}
	if c.trackingURI == "" && needed {
		c.trackingURI = meta.DefaultTrackingURI()
	}
	if c.trackingURI != "" {
		if s.tracking, s.client, err = meta.Open(c.trackingURI, env, log); err != nil {
			return nil, err
		}
		if s.client != nil {
			s.clients = append(s.clients, s.client)
		}
	}
	if c.registryURI != "" && c.registryURI != c.trackingURI {
		var client *rest.Client
		if s.registry, client, err = meta.Open(c.registryURI, env, log); err != nil {
			err = fmt.Errorf("the registry: %w", err)
			log.Warn("registered models are left out: the rest is shown", "err", err)
			s.registry = meta.NoRegistry(err)
		}
		if client != nil {
			s.clients = append(s.clients, client)
		}
		if client != nil && c.answers != nil {
			s.registry = meta.WithLastAnswers(s.registry, c.answers, c.registryURI)
		}
	}
	if s.client != nil && c.answers != nil {
		s.tracking = meta.WithLastAnswers(s.tracking, c.answers, c.trackingURI)
	}
	if len(s.clients) == 1 { // whoever writes to a store on this machine has its rights
		allowed = nil
	}
	s.Resolver = resolve.New(resolve.Options{
		Tracking: s.tracking, Registry: s.registry, Client: s.client, Web: web,
		Buckets: buckets(set, env), Access: artifact.Access(c.access),
		TTL: ttl, Allowed: allowed, Silence: c.timeout, Answers: c.answers, Log: log,
	})
	return s, nil
}
