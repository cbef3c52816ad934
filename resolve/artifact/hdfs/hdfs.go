// Package hdfs opens HDFS by hdfs:// URIs, as MLflow's client does
// (mlflow.store.artifact.hdfs_artifact_repo, and Hadoop's own client below it): by the
// configuration of Hadoop, and as the user, or the Kerberos principal, that the
// environment says. viewfs:// is a table of mounts in Hadoop's own client, and is not read.
//
// A cluster is read by HDFS's own protocol (connection), or by HTTP (webCluster, WebHDFS):
// where the URI or WaysVariable says so.
package hdfs

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/colinmarc/hdfs/v2"
	"github.com/colinmarc/hdfs/v2/hadoopconf"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Driver opens clusters.
type Driver struct {
	Settings rest.Settings
	Env      rest.Env
	User     string // who runs this
	Log      *slog.Logger
}

// Open opens the cluster of a URI, whose name is a name node's or that of a name service;
// an empty one is the one that Hadoop's configuration has as fs.defaultFS.
func (d Driver) Open(authority string) (artifact.FileSystem, error) {
	a, err := artifact.ParseAuthority(authority)
	if err != nil {
		return nil, err
	}
	if a.HasPassword {
		return nil, fmt.Errorf("a hdfs:// URI has a password, which HDFS has not")
	}
	ways, err := ReadWays(d.Env)
	if err != nil {
		return nil, err
	}
	if way, ok := ways[a.String()]; ok {
		way.at.User = cmp.Or(way.at.User, a.User)
		return &webCluster{d: d, scheme: way.scheme, at: way.at}, nil
	}
	return artifact.NewHost(func(ctx context.Context) (artifact.Connection, error) {
		c, err := d.dial(ctx, a)
		if err != nil {
			return nil, err
		}
		return c, nil
	}), nil
}

// dial connects to the name node that is active.
func (d Driver) dial(ctx context.Context, a artifact.Authority) (*connection, error) {
	conf, err := readConf(d.Env)
	if err != nil {
		return nil, err
	}
	opt := hdfs.ClientOptionsFromConf(conf)
	if opt.Addresses, err = nameNodes(conf, a); err != nil {
		return nil, err
	}
	opt.User = cmp.Or(a.User, d.Env("MLFLOW_KERBEROS_USER"), d.Env("HADOOP_USER_NAME"), d.User)
	if err := d.kerberos(&opt); err != nil {
		return nil, err
	}
	c := &connection{what: "hdfs://" + strings.Join(opt.Addresses, ","), done: make(chan struct{})}
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) { return c.dial(ctx, d.Settings, addr) }
	opt.NamenodeDialFunc, opt.DatanodeDialFunc = dial, dial
	if _, err := artifact.LetGo(ctx, func() (struct{}, error) {
		client, err := hdfs.NewClient(opt)
		if err != nil {
			return struct{}{}, err
		}
		if _, err = client.ServerDefaults(); err != nil { // which each file's client has then: see Open
			c.end()
			client.Close()
			return struct{}{}, err
		}
		c.client = client
		return struct{}{}, nil
	}, func(struct{}) { c.Close() }); err != nil {
		c.end()
		return nil, c.meaning(err)
	}
	return c, nil
}

const defaultPort = "8020"

// nameNodes are the addresses of the name nodes that a URI means, by the configuration
// where that has them (dfs.ha.namenodes, dfs.namenode.rpc-address).
func nameNodes(conf hadoopconf.HadoopConf, a artifact.Authority) ([]string, error) {
	if a.Host == "" {
		uri := cmp.Or(conf["fs.defaultFS"], conf["fs.default.name"])
		name, ok := strings.CutPrefix(uri, "hdfs://")
		if !ok {
			return nil, fmt.Errorf("a hdfs:/// URI names no name node, and neither does fs.defaultFS in the core-site.xml of HADOOP_CONF_DIR")
		}
		name, _, _ = strings.Cut(name, "/")
		var err error
		if a, err = artifact.ParseAuthority(name); err != nil || a.Host == "" {
			return nil, fmt.Errorf("fs.defaultFS in the core-site.xml of HADOOP_CONF_DIR names no name node")
		}
	}
	if nodes := serviceOf(conf, "dfs.namenode.rpc-address", a.Host); a.Port == 0 && len(nodes) > 0 {
		return nodes, nil
	}
	if a.Port == 0 {
		return []string{net.JoinHostPort(a.Host, defaultPort)}, nil
	}
	return []string{net.JoinHostPort(a.Host, fmt.Sprint(a.Port))}, nil
}

// serviceOf are addresses of the name nodes of a name service, of the kind that key names;
// none: it is no such name.
func serviceOf(conf hadoopconf.HadoopConf, kind, name string) (out []string) {
	for key, nodes := range conf {
		service, ok := strings.CutPrefix(key, "dfs.ha.namenodes.")
		if !ok || !strings.EqualFold(service, name) { // a URI's host has no case
			continue
		}
		for node := range strings.SplitSeq(nodes, ",") {
			if addr := conf[kind+"."+service+"."+strings.TrimSpace(node)]; addr != "" {
				out = append(out, addr)
			}
		}
	}
	return out
}

// connection is a client of a cluster: a connection to its name node, and one to a data
// node for each file that is read.
//
// The client renews its leases each second, of which it has none, as it opens no file for
// writing. That is why a host that is not used is left soon (artifact.Host).
type connection struct {
	what   string
	client *hdfs.Client

	mu     sync.Mutex // guards what follows
	conns  map[*rest.Conn]bool
	broken error
	done   chan struct{} // closed when it has ended
}

// dial connects to a node, which is heard out while it answers: each Read of the client
// awaits something.
func (c *connection) dial(ctx context.Context, set rest.Settings, addr string) (net.Conn, error) {
	conn, err := set.Dial(ctx, addr, c.what)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns == nil {
		c.conns = map[*rest.Conn]bool{}
	}
	select {
	case <-c.done:
		conn.Close()
		return nil, net.ErrClosed
	default:
	}
	c.conns[conn] = true
	return &noted{conn, c}, nil
}

// noted is a connection to a node.
type noted struct {
	*rest.Conn
	c *connection
}

func (n *noted) Read(p []byte) (int, error) {
	defer n.Await()()
	return n.Conn.Read(p)
}

// SetDeadline is the client's, which knows of none.
func (n *noted) SetDeadline(time.Time) error { return nil }

func (n *noted) Close() error {
	n.c.mu.Lock()
	delete(n.c.conns, n.Conn)
	n.c.mu.Unlock()
	return n.Conn.Close()
}
