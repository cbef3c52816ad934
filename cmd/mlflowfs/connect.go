package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/answers"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// stores are the open stores of a connection.
type stores struct {
	*resolve.Resolver
	tracking, registry meta.Store   // nil where none was needed
	client             *rest.Client // nil where the tracking store is no server
	remote             bool         // whether one of them is another machine's
	registryClient     *rest.Client // nil where the registry is no server of its own
	clients            []*rest.Client
	clocks             []*rest.Clocks // of servers and stores
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

// mend is what to do where the tracking store refuses who asks.
func (s *stores) mend() string {
	if s.client == nil && s.tracking.Remote() {
		return "give the tracking URI, or the variables of the database's client, a user and a password that may read it"
	}
	return s.client.Mend()
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

// openOptions say which stores are needed, and what is kept of what they say.
type openOptions struct {
	ttl     time.Duration    // of an answer
	needed  bool             // a store, also where no tracking URI is given: the default one then
	answers *answers.Answers // for when a server can't be asked; nil: none are kept
	cache   *cache.Cache     // where tables are made; nil: one of their own
	first   int              // what their numbers begin behind
}

// open opens the stores and makes a resolver of them. A storage URI needs no
// tracking store.
func (c *ClientConfig) open(opt openOptions, log *slog.Logger) (*stores, error) {
	set, err := rest.ReadSettings(c.Env)
	if err != nil {
		return nil, usageError{err}
	}
	web, err := rest.NewWebClient(c.Env, log)
	if err != nil {
		return nil, err
	}
	if c.Server.TrackingURI == "" && opt.needed {
		c.Server.TrackingURI = meta.DefaultTrackingURI()
	}
	s := &stores{clients: []*rest.Client{web}}
	if err := s.openTracking(c, opt, log); err != nil {
		if opt.needed {
			return nil, err
		}
		log.Warn("the tracking store is left out: what is asked for needs none", "err", err)
		s.tracking, s.client = nil, nil
	}
	unusable := s.openRegistry(c, opt, log)
	s.clocks = []*rest.Clocks{set.Clocks}
	for _, c := range s.clients {
		s.clocks = append(s.clocks, c.Clocks())
	}
	allowed, err := c.allowed()
	if err != nil {
		return nil, err
	}
	if !s.remote { // whoever writes to a store on this machine has its rights
		allowed.Own = true
	}
	s.Resolver = resolve.New(resolve.Options{
		FirstSerial: opt.first,
		Tracking:    s.tracking, Registry: s.registry, Client: s.client, RegistryClient: s.registryClient, Web: web,
		Buckets: c.buckets(set, log), Lent: c.lent(set, log), Hosts: c.hosts(set, log), Access: c.Artifacts.Access,
		TTL: opt.ttl, Allowed: allowed, Silence: c.Server.Timeout, Answers: opt.answers, Cache: opt.cache, Log: log,
	})
	s.LeavesOut(resolve.RegisteredModels, "", unusable)
	return s, nil
}

func (s *stores) openTracking(c *ClientConfig, opt openOptions, log *slog.Logger) (err error) {
	uri := c.Server.TrackingURI
	if uri == "" {
		return nil
	}
	s.tracking, s.client, err = s.openStore(meta.Open, uri, c, opt, log)
	return err
}

// openStore opens the store at a URI, whose last answers are kept where it is remote.
func (s *stores) openStore(open func(string, rest.Env, *slog.Logger) (meta.Store, *rest.Client, error), uri string, c *ClientConfig, opt openOptions, log *slog.Logger) (meta.Store, *rest.Client, error) {
	store, client, err := open(uri, c.Env, log)
	if err != nil {
		return nil, nil, err
	}
	s.remote = s.remote || store.Remote()
	if client != nil {
		s.clients = append(s.clients, client)
	}
	if opt.answers != nil {
		store = meta.WithLastAnswers(store, opt.answers, uri, meta.Identity(uri, c.Env))
	}
	return store, client, nil
}

// openRegistry opens the registry, if it is a store of its own. Where it can't be opened,
// the rest is shown; the error, an errors.ErrUnsupported, says why.
func (s *stores) openRegistry(c *ClientConfig, opt openOptions, log *slog.Logger) (unusable error) {
	uri := cmp.Or(c.Server.RegistryURI, meta.DefaultRegistryURI(c.Server.TrackingURI))
	if uri == c.Server.TrackingURI && !rest.IsDatabricks(uri) {
		return nil
	}
	var err error
	if s.registry, s.registryClient, err = s.openStore(meta.OpenRegistry, uri, c, opt, log); err == nil {
		return nil
	}
	s.registry, unusable = meta.NoRegistry(fmt.Errorf("the registry: %w", err))
	return unusable
}
