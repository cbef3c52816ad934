package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

// meter measures a daemon. What others count is read when it is asked for.
type meter struct {
	d        *daemon
	registry *prometheus.Registry
	answered *prometheus.HistogramVec
	failed   *prometheus.CounterVec
}

// measure is one number of a daemon, as Prometheus sees it.
type measure struct {
	name, help string
	kind       prometheus.ValueType
	value      func(c *cache.Stats, m *fusefs.Stats) float64
}

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

// measures are the numbers; docs/metrics.md and the dashboard name no others.
var measures = []measure{
	{"cache_memory_hits_total", "Blocks of 128 KiB that programs wanted and that were in memory.", counter, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.MemoryHits) }},
	{"cache_disk_hits_total", "Blocks that programs wanted and that were on disk.", counter, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.DiskHits) }},
	{"cache_misses_total", "Blocks that programs had to wait for.", counter, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.Misses) }},
	{"cache_evicted_total", "Blocks that left memory for others.", counter, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.Evicted) }},
	{"cache_damaged_total", "Files that were found damaged in the disk cache.", counter, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.Damaged) }},
	{"cache_memory_bytes", "Bytes of blocks in memory.", gauge, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.Memory) }},
	{"cache_memory_limit_bytes", "Bytes of blocks in memory, at most.", gauge, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.MemoryLimit) }},
	{"cache_disk_bytes", "Bytes of the disk cache, by all mounts of it.", gauge, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.Disk) }},
	{"cache_disk_limit_bytes", "Bytes of the disk cache, at most.", gauge, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.DiskLimit) }},
	{"cache_open_files", "Files that programs have open, or that still come.", gauge, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.Open) }},
	{"origin_bytes_total", "Bytes of artifacts that came from their stores.", counter, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.OriginBytes) }},
	{"origin_requests_total", "Requests for bytes of artifacts.", counter, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.OriginRequests) }},
	{"origin_failures_total", "Requests for bytes of artifacts that failed.", counter, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.OriginFailures) }},
	{"origin_fetches", "Fetches that run, or wait for their turn.", gauge, func(c *cache.Stats, _ *fusefs.Stats) float64 { return float64(c.Fetches) }},
	{"fuse_opens_total", "Files that programs opened.", counter, func(_ *cache.Stats, m *fusefs.Stats) float64 { return float64(m.Opens) }},
	{"fuse_passthrough_opens_total", "Of these, those that the kernel reads by itself.", counter, func(_ *cache.Stats, m *fusefs.Stats) float64 { return float64(m.PassedOpens) }},
	{"fuse_pushed_bytes_total", "Bytes that the kernel was given before it asked.", counter, func(_ *cache.Stats, m *fusefs.Stats) float64 { return float64(m.PushedBytes) }},
	{"fuse_names", "Names that the kernel knows.", gauge, func(_ *cache.Stats, m *fusefs.Stats) float64 { return float64(m.Names) }},
	{"fuse_waiting_requests", "Requests of the kernel that are not answered yet.", gauge, func(_ *cache.Stats, m *fusefs.Stats) float64 { return float64(m.Waiting) }},
	{"fuse_longest_wait_seconds", "How long the one of these waits that waits longest.", gauge, func(_ *cache.Stats, m *fusefs.Stats) float64 { return m.LongestWait }},
}

const metricsPrefix = "mlflowfs_"

func newMeter(d *daemon) *meter {
	m := &meter{
		d: d, registry: prometheus.NewRegistry(),
		answered: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricsPrefix + "fuse_request_seconds", Help: "How long requests of the kernel took, by operation.",
			Buckets: prometheus.ExponentialBuckets(1e-5, 4, 11), // 10 µs to 10 s
		}, []string{"op"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricsPrefix + "fuse_failures_total", Help: "Requests of the kernel for which a program got an error, by operation and errno.",
		}, []string{"op", "errno"}),
	}
	m.registry.MustRegister(m, m.answered, m.failed, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

var _ prometheus.Collector = (*meter)(nil)

var (
	serverRequests = prometheus.NewDesc(metricsPrefix+"server_requests_total", "Requests to MLflow servers, by the class of the answer's status; none: there was no answer.", []string{"status"}, nil)
	serverRetries  = prometheus.NewDesc(metricsPrefix+"server_retries_total", "Requests to MLflow servers that were to be sent again, by the class of the answer that was the reason; none: there was no answer.", []string{"status"}, nil)
)

// statusClasses names the classes of rest.Traffic.
var statusClasses = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

// Describe gives nothing: what there is is known when it is asked for.
func (m *meter) Describe(chan<- *prometheus.Desc) {}

// Collect reads what others count.
func (m *meter) Collect(out chan<- prometheus.Metric) {
	c, f := m.d.cache.Stats(), m.d.mounted()
	for _, x := range measures {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(metricsPrefix+x.name, x.help, nil, nil), x.kind, x.value(&c, &f))
	}
	t := m.d.stores.traffic()
	for class, status := range statusClasses {
		out <- prometheus.MustNewConstMetric(serverRequests, counter, float64(t.Requests[class]), status)
		out <- prometheus.MustNewConstMetric(serverRetries, counter, float64(t.Retries[class]), status)
	}
}

// errors counts the errors that programs got, by errno.
func (m *meter) errors() map[string]int64 {
	counts := make(chan prometheus.Metric)
	go func() {
		m.failed.Collect(counts)
		close(counts)
	}()
	sums := map[string]int64{}
	for c := range counts {
		var x dto.Metric
		if c.Write(&x) != nil {
			continue
		}
		for _, l := range x.Label {
			if l.GetName() == "errno" {
				sums[l.GetValue()] += int64(x.Counter.GetValue())
			}
		}
	}
	return sums
}

// text is all metrics in Prometheus's text format.
func (m *meter) text() []byte {
	var b bytes.Buffer
	families, err := m.registry.Gather()
	for _, f := range families {
		_, werr := expfmt.MetricFamilyToText(&b, f)
		err = errors.Join(err, werr)
	}
	if err != nil {
		fmt.Fprintln(&b, "#", err)
	}
	return b.Bytes()
}

// loopbackOf is a metrics address whose empty host is this machine alone.
func loopbackOf(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", usageError{fmt.Errorf("--metrics-addr %q: write it like :9420, for this machine alone, or 0.0.0.0:9420", addr)}
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// listen serves /metrics at addr, and with profiles /debug/pprof/, until the
// process ends.
func (m *meter) listen(ctx context.Context, addr string, profiles, busy bool, log *slog.Logger) error {
	addr, err := loopbackOf(addr)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	switch {
	case err == nil:
		m.serve(l, profiles, log)
	case busy && errors.Is(err, syscall.EADDRINUSE):
		log.Info("metrics are served when the daemon before has ended", "address", addr)
		go m.listenLater(ctx, addr, profiles, log)
	default:
		return fmt.Errorf("--metrics-addr: %w", err)
	}
	return nil
}

// listenLater listens when the daemon before this one has ended.
func (m *meter) listenLater(ctx context.Context, addr string, profiles bool, log *slog.Logger) {
	for ctx.Err() == nil {
		if l, err := net.Listen("tcp", addr); err == nil {
			m.serve(l, profiles, log)
			return
		}
		time.Sleep(retryListen)
	}
}

func (m *meter) serve(l net.Listener, profiles bool, log *slog.Logger) {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	if profiles {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	log.Info("metrics are served", "address", "http://"+l.Addr().String()+"/metrics", "pprof", profiles)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(l)
}
