package hdfs

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/colinmarc/hdfs/v2/hadoopconf"
	"github.com/jcmturner/gokrb5/v8/client"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// WaysVariable says which clusters are read by WebHDFS although their URIs are hdfs://
// ones, with commas: hdfs://namenode:8020=webhdfs://namenode:9870.
const WaysVariable = "MLFLOWFS_WEBHDFS"

// way is where a cluster's WebHDFS is.
type way struct {
	scheme string // http or https
	at     artifact.Authority
}

// webSchemes are those of Hadoop's own client, and what they speak.
var webSchemes = map[string]string{"webhdfs": "http", "swebhdfs": "https"}

// ReadWays reads WaysVariable: by what stands in an hdfs:// URI for the cluster.
func ReadWays(env rest.Env) (map[string]way, error) {
	ways := map[string]way{}
	for entry := range strings.SplitSeq(env(WaysVariable), ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		bad := fmt.Errorf("--webhdfs (%s): write each cluster like hdfs://namenode:8020=webhdfs://namenode:9870 or …=swebhdfs://namenode:9871, without a password", WaysVariable)
		from, to, _ := strings.Cut(entry, "=")
		from, ok := strings.CutPrefix(from, "hdfs://")
		scheme, to, ok2 := strings.Cut(to, "://")
		a, err := artifact.ParseAuthority(strings.TrimSuffix(from, "/"))
		b, err2 := artifact.ParseAuthority(strings.TrimSuffix(to, "/"))
		if !ok || !ok2 || webSchemes[scheme] == "" || err != nil || err2 != nil || a.HasPassword || b.HasPassword || b.Host == "" || strings.ContainsRune(a.Host+b.Host, '/') {
			return nil, bad
		}
		ways[a.String()] = way{webSchemes[scheme], b}
	}
	return ways, nil
}

// OpenWeb opens clusters of which the HTTP or HTTPS ports can be reached (WebHDFS), as
// webhdfs:// and swebhdfs:// URIs name them.
func (d Driver) OpenWeb(scheme string) artifact.OpenHost {
	return func(authority string) (artifact.FileSystem, error) {
		a, err := artifact.ParseAuthority(authority)
		if err != nil {
			return nil, err
		}
		if a.HasPassword || a.Host == "" {
			return nil, fmt.Errorf("a webhdfs:// URI names no host, or a password, which HDFS has not")
		}
		return &webCluster{d: d, scheme: scheme, at: a}, nil
	}
}

// webCluster is a cluster by WebHDFS. Its name nodes get the user's name or ticket, its
// data nodes nothing but what the name node wrote into the address that leads to them.
type webCluster struct {
	d      Driver
	scheme string
	at     artifact.Authority

	mu     sync.Mutex // guards what follows
	made   *webNodes  // nil: the configuration was not read yet
	active int        // the name node that answered last
	krb    *client.Client
	read   time.Time // when krb's ticket was read
}

// webNodes are what a configuration makes of a webCluster.
type webNodes struct {
	names  []*url.URL
	user   string // empty: it is known by Kerberos
	ticket func() (*client.Client, error)
	client *rest.Client

	offline bool // nothing is sent, to a KDC neither
}

// nodes reads the configuration, once it can be read.
func (c *webCluster) nodes() (*webNodes, int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made != nil {
		return c.made, c.active, nil
	}
	conf, err := readConf(c.d.Env)
	if err != nil {
		return nil, 0, err
	}
	w := &webNodes{names: webNames(conf, c.scheme, c.at), offline: c.d.Settings.Offline}
	if w.client, err = rest.NewStepClient(c.d.Env, c.d.Log); err != nil {
		return nil, 0, err
	}
	for _, u := range w.names {
		w.client.Reach().Name(u.String())
	}
	if strings.EqualFold(conf["hadoop.security.authentication"], "kerberos") {
		w.ticket = c.ticket
	} else {
		w.user = cmp.Or(c.at.User, c.d.Env("MLFLOW_KERBEROS_USER"), c.d.Env("HADOOP_USER_NAME"), c.d.User)
	}
	c.made = w
	return w, 0, nil
}

// ticketFor is how long a client of Kerberos is used, and with it the tickets for the name
// nodes, until the user's ticket is looked at again.
const ticketFor = 10 * time.Second

// ticket is a client of Kerberos with the user's ticket.
func (c *webCluster) ticket() (*client.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.krb == nil || time.Since(c.read) > ticketFor {
		krb, err := c.d.ticket()
		if err != nil {
			return nil, err
		}
		c.krb, c.read = krb, time.Now()
	}
	return c.krb, nil
}

// webNames are the name nodes that a URI means: those of a name service that the
// configuration has, or the one that it names.
func webNames(conf hadoopconf.HadoopConf, scheme string, a artifact.Authority) (out []*url.URL) {
	kind, port := "dfs.namenode.http-address", "9870"
	if scheme == "https" {
		kind, port = "dfs.namenode.https-address", "9871"
	}
	if a.Port == 0 {
		for _, addr := range serviceOf(conf, kind, a.Host) {
			out = append(out, &url.URL{Scheme: scheme, Host: addr})
		}
	} else {
		port = fmt.Sprint(a.Port)
	}
	if out == nil {
		out = append(out, &url.URL{Scheme: scheme, Host: net.JoinHostPort(a.Host, port)})
	}
	return out
}

// Dir is the store of a directory.
func (c *webCluster) Dir(opt artifact.RemoteOptions) artifact.Store {
	return &webDir{c: c, opt: opt, most: maxListing}
}

// Close closes the connections that no request uses.
func (c *webCluster) Close() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made != nil {
		c.made.client.CloseIdleConnections()
	}
	return true
}
