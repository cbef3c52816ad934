package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/cache/disk"
	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs"
	"github.com/mlflowfs/mlflowfs/resolve/answers"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// mountFlags are the flags of mount.
type mountFlags struct {
	daemon bool
}

func (p *process) mountCommand() *cobra.Command {
	var f mountFlags
	c := &cobra.Command{
		Use:   "mount [flags] MOUNTPOINT",
		Short: "Mount a tracking server's runs and models",
		Long: `Mount shows the runs and models of an MLflow tracking server, of a database
that one keeps (sqlite, PostgreSQL, MySQL, SQL Server), or of a FileStore directory
at MOUNTPOINT, an empty directory. It stays in the foreground, where Ctrl-C (SIGINT) or SIGTERM unmounts; --daemon has it go on in
the background.

Credentials are taken from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,
from MLFLOW_TRACKING_TOKEN, from ~/.mlflow/credentials or from a netrc file. These variables of
MLflow's work here, too: MLFLOW_TRACKING_INSECURE_TLS,
MLFLOW_TRACKING_SERVER_CERT_PATH, MLFLOW_TRACKING_CLIENT_CERT_PATH,
MLFLOW_TRACKING_AWS_SIGV4, MLFLOW_WORKSPACE, MLFLOW_ENABLE_WORKSPACES,
MLFLOW_HTTP_REQUEST_TIMEOUT, MLFLOW_HTTP_REQUEST_MAX_RETRIES,
MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR; for artifacts in S3 MLFLOW_S3_ENDPOINT_URL and
MLFLOW_S3_IGNORE_TLS. Object stores take their own variables (AWS_…, GOOGLE_…,
AZURE_STORAGE_…); where there are none, the tracking server's access is used. A
Databricks workspace (databricks, databricks://profile) takes DATABRICKS_… and
~/.databrickscfg, and an open source Unity Catalog MLFLOW_UC_OSS_TOKEN.`,
		Args: exactly(1, "one MOUNTPOINT"),
	}
	c.Flags().BoolVar(&f.daemon, "daemon", false, "go on in the background: return when the mount answers")
	return p.command(c, mounting, f.run)
}

// ownPoint is the variable that has a mount remove its mount point when it ends: who made
// the directory for it may be gone by then.
const ownPoint = "MLFLOWFS_OWN_MOUNTPOINT"

func (f *mountFlags) run(ctx context.Context, o *options, args []string) (err error) {
	log, err := o.log()
	if err != nil {
		return err
	}
	if o.held.takesUp() {
		return o.takeUp(ctx, log)
	}
	point, err := fusefs.ResolvePoint(args[0])
	if err != nil {
		return err
	}
	if o.getenv(ownPoint) != "" {
		if err := ownDirectory(point); err != nil {
			return err
		}
		defer func() {
			if err != errLeft {
				os.Remove(point)
			}
		}()
	}
	if err := fusefs.CheckMountpoint(point, log); err != nil {
		return err
	}
	if f.daemon {
		return o.inBackground(ctx, point)
	}
	d, err := o.openDaemon(ctx, log)
	if err != nil {
		return err
	}
	defer d.close()
	if ctx.Err() != nil {
		return errors.New("interrupted before it was mounted")
	}
	return d.serve(ctx, o, point, log)
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
	shown   atomic.Pointer[fusefs.Mounted] // nil until it is
	used    atomic.Int64                   // when a request of the kernel was answered last, in nanoseconds since 1970

	holder   int                      // the process that has the mount; this one where there is none
	upgraded atomic.Pointer[upgraded] // the last upgrade; nil: none
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
func (d *daemon) mounted() fusefs.Stats {
	if m := d.shown.Load(); m != nil {
		return m.Stats()
	}
	return fusefs.Stats{}
}

// openDaemon opens the stores and makes the tree that they show.
func (o *options) openDaemon(ctx context.Context, log *slog.Logger) (*daemon, error) {
	c, disk, err := o.openCache(log)
	if err != nil {
		return nil, err
	}
	asker := rest.Asker(o.Server.TrackingURI, o.Env) + rest.Asker(o.Server.RegistryURI, o.Env)
	kept := answers.New(disk, answers.Options{Scope: asker, Stale: o.Mount.StaleIfError, Offline: o.Server.Offline, Log: log})
	s, err := o.open(openOptions{ttl: o.Mount.MetadataTTL, needed: true, answers: kept, cache: c, first: int(o.firstNumber())}, log)
	if err != nil {
		return nil, err
	}
	d := &daemon{server: o.Server.TrackingURI, started: time.Now(), cache: c, disk: disk, stores: s}
	d.meter = newMeter(d)
	d.holder = os.Getpid()
	if o.held != nil {
		d.holder = os.Getppid()
		d.upgraded.Store(o.held.Upgrade)
		o.held.told.Store(&d.upgraded)
	}
	switch {
	case o.Server.Offline:
		log.Info("the network is not used; what was listed before is shown, and what the cache has can be read")
	case !o.held.takesUp(): // else programs wait, and the mount is there whatever the server says
		err = ping(ctx, s, d.server, log)
	}
	if err == nil && o.Mount.MetricsAddr != "" {
		err = d.meter.listen(ctx, o.Mount.MetricsAddr, o.Mount.Pprof, o.held.takesUp(), log)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	if s.client != nil { // known by the time that it is needed
		go s.client.OffersPresigned(ctx)
	}
	scope := o.scope()
	if o.served { // it ends with a program that knows nothing of others
		scope = ""
	}
	d.root, err = fs.New(fs.Options{
		Resolver: s.Resolver, Cache: c, FirstLater: o.firstNumber(), Log: log, URIs: o.Artifacts.MountURIs, Scope: scope,
		About: map[string]func() []byte{
			"status.json": func() []byte { return d.status().json() },
			"metrics":     d.meter.text,
			"config.yaml": o.yaml,
		},
	})
	if err != nil {
		s.close()
		return nil, usageError{err}
	}
	return d, nil
}

// pingFor is how long a mount waits for the server's first word. A server
// that is down now may come up later, and the mount with it.
const pingFor = 1500 * time.Millisecond

func ping(ctx context.Context, s *stores, uri string, log *slog.Logger) error {
	soon, cancel := context.WithTimeout(ctx, pingFor)
	defer cancel()
	places, err := s.tracking.Ping(soon)
	s.Expect(places)
	shown := rest.Redact(uri)
	var refusal *rest.Error
	switch {
	case err == nil || ctx.Err() != nil:
		return nil
	case errors.Is(err, iofs.ErrPermission):
		return fmt.Errorf("the tracking store %s refuses the credentials (%w): %s", shown, err, s.mend())
	case s.tracking.Remote() && meta.Refused(err):
		return fmt.Errorf("%w: check the database's name and schema in the tracking URI", err)
	case errors.As(err, &refusal) && refusal.NoSuchEndpoint():
		return fmt.Errorf("%s answers, and is no MLflow tracking server: check the tracking URI's port and path", shown)
	case errors.As(err, &refusal) && refusal.Final():
		return fmt.Errorf("the tracking store %s refuses what it is asked: %w", shown, err) // such as a workspace that is not there
	}
	log.Warn("the tracking server does not answer; mounting all the same, and asking it again when something is read", "server", shown, "err", err)
	return nil
}

// unmountIdle unmounts when nobody has used the mount for that long: no request came, and
// no program has anything of it open, or stands in it. 0 is never.
func (d *daemon) unmountIdle(ctx context.Context, m *fusefs.Mounted, timeout time.Duration, log *slog.Logger) {
	d.used.CompareAndSwap(0, time.Now().UnixNano())
	for timeout > 0 && ctx.Err() == nil {
		left := timeout - time.Since(time.Unix(0, d.used.Load()))
		if left <= 0 && m.UnmountUnused() == nil {
			log.Info("unmounted: nobody has used it", "for", timeout)
			return
		}
		select {
		case <-time.After(max(left, min(timeout, time.Second))):
		case <-ctx.Done():
		}
	}
}

// mountError says why the kernel, or fusermount3, does not mount.
type mountError struct{ error }

func (e mountError) Unwrap() error { return e.error }

// holdStderr keeps to itself what programs that are started say on standard error, until
// its result is called, which gives it: what fusermount3 complains of is nothing where
// there is another way.
func holdStderr() (said func() string) {
	r, w, err := os.Pipe()
	if err != nil {
		return func() string { return "" }
	}
	old := os.Stderr
	os.Stderr = w
	return func() string {
		os.Stderr = old
		w.Close()
		b, _ := io.ReadAll(r)
		r.Close()
		return strings.TrimSpace(string(b))
	}
}

// mountOptions say how this mount is shown.
func (d *daemon) mountOptions(o *options, log *slog.Logger) fusefs.MountOptions {
	return fusefs.MountOptions{
		AllowOther: o.Mount.AllowOther, Debug: o.Log.FUSE, MaxRead: o.Cache.maxRead(), MaxReads: o.Cache.maxReads(), MaxNames: o.Cache.maxNames(),
		NoPassing: o.Mount.NoPassthrough, NoPushing: o.Mount.NoPush, Stuck: o.stuck(), Log: log, Scope: o.scope(),
		Answered: func(op string, took time.Duration) {
			d.used.Store(time.Now().UnixNano())
			d.meter.answered.WithLabelValues(op).Observe(took.Seconds())
		},
		Failed: func(op, errno string) { d.meter.failed.WithLabelValues(op, errno).Inc() },
	}
}

// serve mounts the tree and stays until it is unmounted, because ctx ends or by
// somebody else.
func (d *daemon) serve(ctx context.Context, o *options, point string, log *slog.Logger) error {
	d.point = point
	o.levels(log)
	dropRights(log)
	said := func() string { return "" }
	if o.parent != nil { // which is told
		said = holdStderr()
	}
	opt := d.mountOptions(o, log)
	m, err := fusefs.Mount(point, d.root, opt)
	if words := said(); err != nil && words != "" {
		err = fmt.Errorf("%w: %s", err, words)
	}
	if err != nil {
		return mountError{err}
	}
	if o.held != nil {
		o.held.shows(d, o, m)
	}
	shows := fmt.Sprintf("%s shows %s", point, rest.Redact(d.server))
	if !o.tellParent(word{Said: shows}) {
		fmt.Fprintf(o.stderr, "mlflowfs: %s; Ctrl-C unmounts\n", shows)
	}
	return d.stay(ctx, o, m, opt, log)
}

// stay stays until the mount is gone, because ctx ends or by somebody else, or another
// daemon's (errLeft).
func (d *daemon) stay(ctx context.Context, o *options, m *fusefs.Mounted, opt fusefs.MountOptions, log *slog.Logger) error {
	d.shown.Store(m)
	d.notify(o, log)
	for {
		idle, used := context.WithCancel(ctx)
		go d.unmountIdle(idle, m, o.Mount.IdleTimeout, log)
		gone := make(chan struct{})
		go func(m *fusefs.Mounted) {
			m.Wait()
			close(gone)
		}(m)
		order, err := o.waits(ctx, gone)
		used()
		switch {
		case err != nil:
			return d.unmount(o, m, gone)
		case order.Kind == "":
			return nil // unmounted by somebody else
		}
		if m, err = d.hand(ctx, o.held, m, opt, log); err != nil {
			return err
		}
		d.shown.Store(m)
	}
}

// waits waits for an order to let the mount go. There is none where it is gone; an error says
// that ctx has ended.
func (p *process) waits(ctx context.Context, gone <-chan struct{}) (message, error) {
	var orders <-chan message
	if p.held != nil {
		orders = p.held.orders
	}
	for {
		select {
		case <-gone:
			return message{}, nil
		case <-ctx.Done():
			return message{}, ctx.Err()
		case m, ok := <-orders:
			if m.Kind == doLetGo {
				return m, nil
			}
			if !ok { // ctx ends, too
				orders = nil
			}
		}
	}
}

// unmount takes the mount away, and waits until nobody uses it any more, or for another
// signal.
func (d *daemon) unmount(o *options, m *fusefs.Mounted, gone <-chan struct{}) error {
	busy, err := m.Unmount()
	if err != nil {
		return fmt.Errorf("%s can't be unmounted: %w", d.point, err)
	}
	if again := "again "; busy {
		if o.served {
			again = "" // the one that ends is not this process
		}
		fmt.Fprintf(o.stderr, "mlflowfs: %s is detached; waiting for programs that still use it (%sCtrl-C to end at once)\n", d.point, again)
	}
	select {
	case <-gone:
	case <-o.abort:
	}
	return nil
}
