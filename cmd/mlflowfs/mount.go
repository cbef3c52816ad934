package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/cache/disk"
	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/answers"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// mountFlags are the flags of mount.
type mountFlags struct {
	connection
	caching
	allowOther    bool
	allowStores   []string
	uris          []string
	ttl           time.Duration
	stale         time.Duration
	debugFUSE     bool
	noPassthrough bool
	noPush        bool
	metricsAddr   string
	pprof         bool
	daemon        bool
	set           *settings
}

func mountCommand() *cobra.Command {
	f, set := newMount()
	c := &cobra.Command{
		Use:   "mount [flags] MOUNTPOINT",
		Short: "Mount a tracking server's runs and models",
		Long: `Mount shows the runs and models of an MLflow tracking server, of a sqlite file, or
of a FileStore directory at MOUNTPOINT, an empty directory. It stays in the
foreground, where Ctrl-C (SIGINT) or SIGTERM unmounts; --daemon has it go on in
the background.

Credentials are taken from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,
from MLFLOW_TRACKING_TOKEN, from ~/.mlflow/credentials or from a netrc file. These variables of
MLflow's work here, too: MLFLOW_TRACKING_INSECURE_TLS,
MLFLOW_TRACKING_SERVER_CERT_PATH, MLFLOW_TRACKING_CLIENT_CERT_PATH,
MLFLOW_TRACKING_AWS_SIGV4, MLFLOW_WORKSPACE, MLFLOW_ENABLE_WORKSPACES,
MLFLOW_HTTP_REQUEST_TIMEOUT, MLFLOW_HTTP_REQUEST_MAX_RETRIES,
MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR; for artifacts in S3 MLFLOW_S3_ENDPOINT_URL and
MLFLOW_S3_IGNORE_TLS. Object stores take their own variables (AWS_…, GOOGLE_…,
AZURE_STORAGE_…); where there are none, the tracking server's access is used.`,
		Args: exactly(1, "one MOUNTPOINT"),
		RunE: func(_ *cobra.Command, args []string) error {
			err := f.run(args[0])
			if err != nil {
				tellParent(word{Err: err.Error(), Code: exitCode(err)})
			}
			return err
		},
	}
	c.Flags().AddFlagSet(set.fl)
	return c
}

// newMount makes the flags of mount.
func newMount() (*mountFlags, *settings) {
	f := &mountFlags{}
	fl := pflag.NewFlagSet("mount", pflag.ContinueOnError)
	set := newSettings(fl)
	f.set = set
	f.connection.bind(set, "info")
	f.caching.bind(set)
	f.bindMemory(set)
	fl.BoolVar(&f.allowOther, "allow-other", false, "show the mount to all users of this machine")
	set.bind("allow-other", "MLFLOWFS_ALLOW_OTHER")
	fl.StringSliceVar(&f.allowStores, "allow-store", nil, "with --allow-other: buckets, or directories in them, that this client's own keys open where the server names them, such as s3://bucket or gs://bucket/dir (comma-separated)")
	set.bind("allow-store", "MLFLOWFS_ALLOW_STORE")
	fl.StringSliceVar(&f.uris, "mount-uris", nil, "buckets, or directories in them, to show below uri/, such as s3://bucket or gs://bucket/dir (comma-separated)")
	set.bind("mount-uris", "MLFLOWFS_MOUNT_URIS")
	fl.DurationVar(&f.ttl, "metadata-ttl", 10*time.Second, "how long an answer of the server is believed; six times as long for what is finished")
	set.bind("metadata-ttl", "MLFLOWFS_METADATA_TTL")
	fl.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long a server may be silent until what waits for it fails")
	set.bind("timeout", "MLFLOWFS_TIMEOUT")
	fl.BoolVar(&f.offline, "offline", false, "use no network: show what was listed before, and read what the cache has")
	set.bind("offline", rest.OfflineVariable)
	fl.DurationVar(&f.stale, "stale-if-error", 24*time.Hour, "how old a listing may be that is shown while its server can't be asked; 0: none is")
	set.bind("stale-if-error", "MLFLOWFS_STALE_IF_ERROR")
	fl.BoolVar(&f.debugFUSE, "debug-fuse", false, "log each request of the kernel (with --log-level debug)")
	set.bind("debug-fuse", "MLFLOWFS_DEBUG_FUSE")
	fl.BoolVar(&f.noPassthrough, "no-passthrough", false, "have the kernel read no file of the cache by itself")
	set.bind("no-passthrough", "MLFLOWFS_NO_PASSTHROUGH")
	fl.BoolVar(&f.noPush, "no-push", false, "give the kernel no pages before it asks for them")
	set.bind("no-push", "MLFLOWFS_NO_PUSH")
	fl.StringVar(&f.metricsAddr, "metrics-addr", "", "serve Prometheus metrics at this address, such as :9420; with no host: to this machine alone")
	set.bind("metrics-addr", "MLFLOWFS_METRICS_ADDR")
	fl.BoolVar(&f.pprof, "pprof", false, "serve profiles there, too (/debug/pprof/)")
	set.bind("pprof", "MLFLOWFS_PPROF")
	fl.BoolVar(&f.daemon, "daemon", false, "go on in the background: return when the mount answers")
	fl.StringVar(&f.logFile, "log-file", "", "write the log to this file, 10 MiB of it and three older ones, and not to standard error (with --daemon: a file below your state directory)")
	set.bind("log-file", "MLFLOWFS_LOG_FILE")
	return f, set
}

func (f *mountFlags) run(point string) error {
	if err := f.set.apply(); err != nil {
		return err
	}
	if !f.set.set("timeout") && os.Getenv(rest.TimeoutVariable) != "" {
		f.timeout = 0 // MLflow's own variable says it
	}
	log, err := f.log()
	if err != nil {
		return err
	}
	if f.ttl <= 0 {
		return usageError{fmt.Errorf("--metadata-ttl %v: it must be more than 0", f.ttl)}
	}
	if f.timeout < 0 || f.stale < 0 {
		return usageError{errors.New("--timeout and --stale-if-error must not be less than 0")}
	}
	if f.pprof && f.metricsAddr == "" {
		return usageError{errors.New("--pprof needs --metrics-addr, which says where")}
	}
	if err := f.check(); err != nil {
		return err
	}
	point, err = fs.ResolvePoint(point)
	if err != nil {
		return err
	}
	if err := fs.CheckMountpoint(point, log); err != nil {
		return err
	}
	if f.daemon {
		return f.inBackground(point)
	}
	d, err := f.open(log)
	if err != nil {
		return err
	}
	defer d.close()
	return f.serve(point, d, log)
}

// daemon is a mount's process.
type daemon struct {
	point   string
	server  string // the tracking URI
	started time.Time
	root    *fs.Node
	cache   *cache.Cache
	disk    *disk.Dir // nil: none
	stores  *stores
	meter   *meter
	shown   atomic.Pointer[fs.Mounted] // nil until it is
}

// close lets go of the stores and of the disk, where what was counted last is
// written.
func (d *daemon) close() {
	d.stores.close()
	if d.disk != nil {
		d.disk.Close()
	}
}

// mounted is what the mount knows and did.
func (d *daemon) mounted() fs.Stats {
	if m := d.shown.Load(); m != nil {
		return m.Stats()
	}
	return fs.Stats{}
}

// open opens the stores and makes the tree that they show.
func (f *mountFlags) open(log *slog.Logger) (*daemon, error) {
	c, disk, err := f.caching.open(log)
	if err != nil {
		return nil, err
	}
	asker := rest.Asker(f.trackingURI, f.env) + rest.Asker(f.registryURI, f.env)
	f.answers = answers.New(disk, answers.Options{Scope: asker, Stale: f.stale, Offline: f.offline, Log: log})
	allowed, err := f.allowed()
	if err != nil {
		return nil, err
	}
	s, err := f.connection.open(f.ttl, true, allowed, log)
	if err != nil {
		return nil, err
	}
	d := &daemon{server: f.trackingURI, started: time.Now(), cache: c, disk: disk, stores: s}
	d.meter = newMeter(d)
	if f.offline {
		log.Info("the network is not used; what was listed before is shown, and what the cache has can be read")
	} else {
		err = ping(s.tracking, f.trackingURI, log)
	}
	if err == nil && f.metricsAddr != "" {
		err = d.meter.listen(f.metricsAddr, f.pprof, log)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	if s.client != nil { // known by the time that it is needed
		go s.client.OffersPresigned(context.Background())
	}
	root, err := fs.New(s.Resolver, c, log, f.uris...)
	if err != nil {
		s.close()
		return nil, usageError{err}
	}
	d.root = fs.WithAbout(root, map[string]func() []byte{
		"status.json": func() []byte { return d.status().json() },
		"metrics":     d.meter.text,
		"config.yaml": f.set.yaml,
	})
	return d, nil
}

// allowed is what a server's word may open: where others see the mount, what its
// settings name. What they show below uri/ is among that.
func (f *mountFlags) allowed() (*resolve.Allowed, error) {
	a, err := resolve.ParseAllowed(append(slices.Clone(f.allowStores), f.uris...))
	if err != nil {
		return nil, usageError{fmt.Errorf("--allow-store, --mount-uris: %w", err)}
	}
	if !f.allowOther {
		return nil, nil
	}
	return a, nil
}

// pingFor is how long a mount waits for the server's first word. A server
// that is down now may come up later, and the mount with it.
const pingFor = 1500 * time.Millisecond

func ping(s meta.Store, uri string, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), pingFor)
	defer cancel()
	err := s.Ping(ctx)
	shown := rest.Redact(uri)
	var refusal *rest.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, iofs.ErrPermission):
		return fmt.Errorf("the tracking server %s refuses the credentials (%w): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, or write ~/.mlflow/credentials", shown, err)
	case errors.As(err, &refusal) && refusal.NoSuchEndpoint():
		return fmt.Errorf("%s answers, and is no MLflow tracking server: check the tracking URI's port and path", shown)
	case errors.As(err, &refusal) && refusal.Final():
		return fmt.Errorf("the tracking server %s refuses what it is asked: %w", shown, err) // such as a workspace that is not there
	}
	log.Warn("the tracking server does not answer; mounting all the same, and asking it again when something is read", "server", shown, "err", err)
	return nil
}

// stuck is how long a request of the kernel may wait until something is wrong.
func (f *mountFlags) stuck() time.Duration { return 3 * cmp.Or(f.timeout, 2*time.Minute) }

// serve mounts the tree and stays until it is unmounted, by a signal or by
// somebody else.
func (f *mountFlags) serve(point string, d *daemon, log *slog.Logger) error {
	d.point = point
	f.levels(log)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	dropRights(log)
	m, err := fs.Mount(point, d.root, fs.MountOptions{
		AllowOther: f.allowOther, Debug: f.debugFUSE, MaxRead: f.maxRead(), MaxReads: f.maxReads(), MaxNames: f.maxNames(), NoPassing: f.noPassthrough, NoPushing: f.noPush, Stuck: f.stuck(), Guarded: true, Log: log,
		Answered: func(op string, took time.Duration) { d.meter.answered.WithLabelValues(op).Observe(took.Seconds()) },
		Failed:   func(op, errno string) { d.meter.failed.WithLabelValues(op, errno).Inc() },
	})
	if err != nil {
		return err
	}
	d.shown.Store(m)
	shows := fmt.Sprintf("%s shows %s", point, rest.Redact(f.trackingURI))
	fmt.Fprintf(os.Stderr, "mlflowfs: %s; Ctrl-C unmounts\n", shows)
	tellParent(word{Said: shows})
	notify(m, rest.Redact(f.trackingURI), f.stuck(), log)
	gone := make(chan struct{})
	go func() {
		m.Wait()
		close(gone)
	}()
	select {
	case <-gone: // unmounted by somebody else
		return nil
	case <-signals:
	}
	busy, err := m.Unmount()
	if err != nil {
		return fmt.Errorf("%s can't be unmounted: %w", point, err)
	}
	if busy {
		fmt.Fprintf(os.Stderr, "mlflowfs: %s is detached; waiting for programs that still use it (again Ctrl-C to end at once)\n", point)
	}
	select {
	case <-gone:
	case <-signals:
	}
	return nil
}
