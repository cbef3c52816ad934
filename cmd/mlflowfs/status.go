package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// status is what a mount says of itself, in .mlflowfs/status.json.
type status struct {
	Mountpoint string    `json:"mountpoint"`
	Server     string    `json:"server"` // the tracking URI, without credentials
	Version    string    `json:"version"`
	PID        int       `json:"pid"` // of who has the mount, and a daemon answer it (see holder)
	Daemon     int       `json:"daemon_pid"`
	Started    time.Time `json:"started"`
	Uptime     float64   `json:"uptime_seconds"`

	Session sessionStatus `json:"session"`

	HitRate   float64           `json:"cache_hit_rate"` // of the blocks that programs wanted
	Pinned    int64             `json:"cache_pinned_bytes"`
	Cache     cache.Stats       `json:"cache"`
	FUSE      fusefs.Stats      `json:"fuse"`
	Errors    map[string]int64  `json:"errors"`          // that programs got, by errno
	Requests  map[string]int64  `json:"server_requests"` // by the class of the answer's status
	Retries   map[string]int64  `json:"server_retries"`  // by that of the answer that was the reason
	Transfers []transfer        `json:"transfers"`
	LeftOut   []resolve.LeftOut `json:"left_out"` // of what is shown
}

// sessionStatus is what of a mount outlives its daemons.
type sessionStatus struct {
	Age         float64   `json:"age_seconds"`
	TakenOver   int       `json:"taken_over"`   // how often another daemon went on with it
	LastUpgrade *upgraded `json:"last_upgrade"` // nil: there was none
}

// transfer is a file that is on its way.
type transfer struct {
	Path string `json:"path"` // in its store
	Size int64  `json:"size"`
	Here int64  `json:"here"`
}

// status is the daemon's.
func (d *daemon) status() *status {
	c := d.cache.Stats()
	s := &status{
		Mountpoint: d.point, Server: rest.Redact(d.server), Version: version(), PID: d.holder, Daemon: os.Getpid(),
		Started: d.started, Uptime: time.Since(d.started).Seconds(),
		HitRate: c.HitRate(), Cache: c, FUSE: d.mounted(), Errors: d.meter.errors(), Requests: map[string]int64{}, Retries: map[string]int64{}, Transfers: []transfer{},
		LeftOut: d.stores.LeftOut(),
	}
	if m := d.shown.Load(); m != nil {
		s.Session.Age, s.Session.TakenOver = m.Age().Seconds(), m.TakenOver()
	}
	s.Session.LastUpgrade = d.upgraded.Load()
	if d.disk != nil {
		s.Pinned = d.disk.Pinned()
	}
	for _, t := range c.Transfers {
		p := t.Location[strings.LastIndexByte(t.Location, 0)+1:] // what stands before it may hold a credential
		s.Transfers = append(s.Transfers, transfer{p, t.Size, t.Here})
	}
	for _, r := range d.stores.remarks() {
		if r.Lesser {
			s.LeftOut = append(s.LeftOut, resolve.LeftOut{Kind: resolve.Kind(r.What), Why: r.Words})
		}
	}
	t := d.stores.traffic()
	for class, name := range statusClasses {
		if n := t.Requests[class]; n > 0 {
			s.Requests[name] = n
		}
		if n := t.Retries[class]; n > 0 {
			s.Retries[name] = n
		}
	}
	return s
}

func (s *status) json() []byte {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return []byte(`{"error": "` + err.Error() + `"}`)
	}
	return append(b, '\n')
}

// show writes s for people.
func (s *status) show(w io.Writer) {
	size := func(n int64) string { return humanize.IBytes(uint64(n)) }
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t"+format+"\n", append([]any{name}, args...)...)
	}
	line("mount", "%s (%s, process %d, up %s)", s.Mountpoint, s.Version, s.PID, time.Duration(s.Uptime*float64(time.Second)).Round(time.Second))
	line("server", "%s", s.Server)
	switch u := s.Session.LastUpgrade; {
	case u == nil:
	case u.Error != "":
		line("not upgraded", "at %s: %s", u.Time.Format(time.DateTime), u.Error)
	default:
		line("upgraded", "at %s", u.Time.Format(time.DateTime))
	}
	line("cache", "%s of %s on disk, %s of it pinned; %s of %s in memory", size(s.Cache.Disk), size(s.Cache.DiskLimit), size(s.Pinned), size(s.Cache.Memory), size(s.Cache.MemoryLimit))
	line("hit rate", "%.1f %% of %d blocks", 100*s.HitRate, s.Cache.MemoryHits+s.Cache.DiskHits+s.Cache.Misses)
	line("from origin", "%s in %d requests, %d of which failed", size(s.Cache.OriginBytes), s.Cache.OriginRequests, s.Cache.OriginFailures)
	by := func(kinds []string, counts map[string]int64) string {
		said := ""
		for _, k := range kinds {
			if n := counts[k]; n > 0 {
				said += fmt.Sprintf("%d %s ", n, k)
			}
		}
		return cmp.Or(strings.TrimSpace(said), "none")
	}
	line("server's answers", "%s", by(statusClasses[:], s.Requests))
	line("asked again after", "%s", by(statusClasses[:], s.Retries))
	line("files", "%d opened, %d of them read by the kernel itself; %d open now; %d names known", s.FUSE.Opens, s.FUSE.PassedOpens, s.Cache.Open, s.FUSE.Names)
	line("errors given", "%s", by(slices.Sorted(maps.Keys(s.Errors)), s.Errors))
	for _, x := range s.LeftOut {
		line("left out", "%s: %s", x.What(), x.Why)
	}
	if s.FUSE.Waiting > 0 {
		line("waiting", "%d requests, the longest for %.1f s", s.FUSE.Waiting, s.FUSE.LongestWait)
	}
	for _, x := range s.Transfers {
		line("in transfer", "%s: %s of %s", x.Path, size(x.Here), size(x.Size))
	}
	t.Flush()
}

// statusWait is how long a daemon may take to say how it is.
const statusWait = 3 * time.Second

// askStatus asks the mount at point.
func askStatus(ctx context.Context, point string) (*status, error) {
	b, err := within(ctx, statusWait, func() (b []byte, err error) {
		for range 5 { // one daemon may have had it open, and another is asked for the rest
			if b, err = os.ReadFile(filepath.Join(point, fs.AboutDir, "status.json")); !errors.Is(err, syscall.ESTALE) {
				break
			}
		}
		return b, err
	})
	var s status
	switch {
	case err == nil:
		return &s, json.Unmarshal(b, &s)
	case errors.Is(err, syscall.ENOTCONN):
		return nil, fmt.Errorf("its daemon is gone: `mlflowfs unmount %s` clears it", point)
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return nil, fmt.Errorf("its daemon does not answer within %v", statusWait)
	}
	return nil, err
}

// within is f, for which nobody waits longer than that: what a mount does not answer can't
// be interrupted.
func within[T any](ctx context.Context, patience time.Duration, f func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	got := make(chan answer, 1)
	go func() {
		v, err := f()
		got <- answer{v, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case a := <-got:
		return a.v, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

func (p *process) listCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list [--json]",
		Short: "List the mounts of mlflowfs on this machine",
		Args:  exactly(0, "nothing but flags"),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return p.command(c, nothing, func(ctx context.Context, o *options, _ []string) error {
		points, err := fusefs.Mounts()
		if err != nil {
			return err
		}
		return list(ctx, points, o.stdout, asJSON)
	})
}

// list writes a line about each mount.
func list(ctx context.Context, points []string, w io.Writer, asJSON bool) error {
	type row struct {
		Mountpoint string  `json:"mountpoint"`
		Server     string  `json:"server,omitempty"`
		Uptime     float64 `json:"uptime_seconds,omitempty"`
		Error      string  `json:"error,omitempty"`
	}
	rows := []row{}
	for _, p := range points {
		if s, err := askStatus(ctx, p); err != nil {
			rows = append(rows, row{Mountpoint: p, Error: err.Error()})
		} else {
			rows = append(rows, row{p, s.Server, s.Uptime, ""})
		}
	}
	if asJSON {
		return json.NewEncoder(w).Encode(rows)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		if r.Error != "" {
			fmt.Fprintf(t, "%s\t%s\n", r.Mountpoint, r.Error)
		} else {
			fmt.Fprintf(t, "%s\t%s\tup %s\n", r.Mountpoint, r.Server, time.Duration(r.Uptime*float64(time.Second)).Round(time.Second))
		}
	}
	return t.Flush()
}

// statuses are those of mounts, as JSON.
func statuses(ctx context.Context, points []string) []json.RawMessage {
	all := []json.RawMessage{}
	for _, p := range points {
		if s, err := askStatus(ctx, p); err == nil {
			all = append(all, s.json())
		} else if b, err := json.Marshal(map[string]string{"mountpoint": p, "error": err.Error()}); err == nil {
			all = append(all, b)
		}
	}
	return all
}

// statusFlags are the flags of status.
type statusFlags struct {
	json, watch bool
}

func (p *process) statusCommand() *cobra.Command {
	var f statusFlags
	c := &cobra.Command{
		Use:   "status [--json] [--watch] [MOUNTPOINT]",
		Short: "Show how a mount does: cache, requests, errors, transfers",
		Long: `Status shows what the mount at MOUNTPOINT says of itself; without MOUNTPOINT, the
only mount of this machine, or each of them. It is also in the mount, as
.mlflowfs/status.json. With --json it is an object where MOUNTPOINT is named, else
a list of them, in which a mount that does not answer has "error".`,
		Args: between(0, 1, "one MOUNTPOINT, or none"),
	}
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	c.Flags().BoolVar(&f.watch, "watch", false, "show it again each second")
	return p.command(c, nothing, f.run)
}

func (f *statusFlags) run(ctx context.Context, o *options, args []string) error {
	for {
		err := showStatus(ctx, args, o.stdout, f.json, f.watch && isTerminal(o.stdout))
		if err != nil || !f.watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// showStatus shows the mounts that args name once.
func showStatus(ctx context.Context, args []string, w io.Writer, asJSON, clear bool) error {
	points, err := fusefs.Mounts()
	if err != nil {
		return err
	}
	if len(args) == 1 {
		point, err := fusefs.ResolvePoint(args[0])
		if err != nil {
			return err
		}
		if _, ours, err := fusefs.FindMount(point); err != nil || !ours {
			return errors.Join(err, fmt.Errorf("%s is no mount of mlflowfs (`mlflowfs list` shows them)", point))
		}
		points = []string{point}
	}
	if asJSON && len(args) == 0 {
		return json.NewEncoder(w).Encode(statuses(ctx, points))
	}
	if len(points) == 0 {
		return errors.New("nothing is mounted: `mlflowfs mount MOUNTPOINT` does that")
	}
	var out strings.Builder
	var failed []error
	for i, p := range points {
		s, err := askStatus(ctx, p)
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", p, err))
		case asJSON:
			out.Write(s.json())
		default:
			if i > 0 {
				out.WriteByte('\n')
			}
			s.show(&out)
		}
	}
	if clear {
		fmt.Fprint(w, "\x1b[H\x1b[2J") // to the top, on an empty screen
	}
	fmt.Fprint(w, out.String())
	return errors.Join(failed...)
}
