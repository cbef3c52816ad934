package rest

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
)

// Reach is which addresses of inner networks may be asked: this machine's own, its
// network's, a cloud's metadata service. A signed URL and a redirect are a server's
// word, and lead there only where the user's settings name the host and port. It is
// decided when a connection is made, by the address that is connected to.
type Reach struct {
	nets []netip.Prefix

	mu      sync.Mutex
	named   map[string]bool // host:port, or a host with any port
	strange map[string]bool // host:port that a store redirected to
}

// AllowAddressVariable holds what else may be reached, with commas: host:port, host,
// an address, or a network such as 10.0.0.0/8.
const AllowAddressVariable = "MLFLOWFS_ALLOW_ADDRESS"

// endpoints are the variables that name a server or a store.
var endpoints = []string{
	"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI",
	"MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "STORAGE_EMULATOR_HOST",
}

// readReach reads what the settings name.
func readReach(env Env) (*Reach, error) {
	r := &Reach{named: map[string]bool{}, strange: map[string]bool{}}
	for _, v := range endpoints {
		r.Name(env(v))
	}
	for part := range strings.SplitSeq(env("AZURE_STORAGE_CONNECTION_STRING"), ";") {
		if v, ok := strings.CutPrefix(part, "BlobEndpoint="); ok {
			r.Name(v)
		}
	}
	for entry := range strings.SplitSeq(env(AllowAddressVariable), ",") {
		entry = strings.ToLower(strings.TrimSpace(entry))
		if entry == "" {
			continue
		}
		if n, err := netip.ParsePrefix(entry); err == nil {
			r.nets = append(r.nets, n.Masked())
		} else if ip, err := netip.ParseAddr(strings.Trim(entry, "[]")); err == nil {
			r.nets = append(r.nets, netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()))
		} else if strings.ContainsAny(entry, "/@?# ") {
			return nil, fmt.Errorf("%s: %q must be host:port, a host, an address, or a network such as 10.0.0.0/8", AllowAddressVariable, entry)
		} else {
			r.named[entry] = true
		}
	}
	return r, nil
}

// Name lets the host and port of a URI be reached: a user named it. So is the host's
// port of https, where http leads to. A URI that names no host is ignored.
func (r *Reach) Name(uri string) {
	if !strings.Contains(uri, "://") {
		uri = "http://" + uri
	}
	if u, err := url.Parse(uri); err == nil && u.Hostname() != "" {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.named[address(u)] = true
		r.named[net.JoinHostPort(strings.ToLower(u.Hostname()), "443")] = true
	}
}

// address is the host:port that net/http connects to for u.
func address(u *url.URL) string {
	ports := map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), cmp.Or(u.Port(), ports[u.Scheme], "80"))
}

func (r *Reach) isNamed(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	r.mu.Lock()
	defer r.mu.Unlock()
	addr, host = strings.ToLower(addr), strings.ToLower(host)
	return r.named[addr] || r.named[host]
}

// check refuses a connection to ip for addr, a host:port of a URL.
func (r *Reach) check(addr string, ip netip.Addr, port string) error {
	ip = ip.WithZone("").Unmap()
	if !inner(ip) || r.isNamed(net.JoinHostPort(ip.String(), port)) {
		return nil
	}
	for _, n := range r.nets {
		if n.Contains(ip) {
			return nil
		}
	}
	return &noRetry{&innerAddress{addr, ip.String()}}
}

// inner tells whether an address is none of the public Internet's, or stands for
// such a one (NAT64, RFC 6052; 6to4, RFC 3056).
func inner(ip netip.Addr) bool {
	for _, n := range notPublic {
		if n.Contains(ip) {
			return true
		}
	}
	if b := ip.AsSlice(); nat64.Contains(ip) {
		return inner(netip.AddrFrom4([4]byte(b[12:16])))
	} else if sixToFour.Contains(ip) {
		return inner(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return false
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour = netip.MustParsePrefix("2002::/16")
	notPublic = prefixes("0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.168.0.0/16 198.18.0.0/15 224.0.0.0/3 " +
		"::/96 64:ff9b:1::/48 fc00::/7 fe80::/9 ff00::/8")
)

func prefixes(s string) (out []netip.Prefix) {
	for p := range strings.FieldsSeq(s) {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// innerAddress is why a URL of a server's is not followed.
type innerAddress struct{ host, ip string }

func (e *innerAddress) Error() string {
	return fmt.Sprintf("a server leads to %s, which is %s, an address of this machine or of an inner network that no setting names: --allow-address %s opens it", e.host, e.ip, e.host)
}

// Is matches fs.ErrPermission.
func (e *innerAddress) Is(target error) bool { return target == fs.ErrPermission }

// guard has a transport keep to r. strangers says that its requests go where a server
// said; else only its redirects do.
type guard struct {
	*Reach
	strangers bool
}

// wrapProxy looks at each request before a connection is chosen for it, be it one that
// is there already. A proxy is named by the user; what it connects to is not seen
// here, so that there a name is let through and an address is not.
func (g guard) wrapProxy(next func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(req *http.Request) (*url.URL, error) {
		addr := address(req.URL)
		redirected := req.Response != nil && req.Response.Request != nil && address(req.Response.Request.URL) != addr
		if (g.strangers || redirected) && !g.isNamed(addr) {
			host, port, _ := net.SplitHostPort(addr)
			if ip, err := netip.ParseAddr(host); err == nil {
				if err := g.check(addr, ip, port); err != nil {
					return nil, err
				}
			} else if numeric(host) || host == "localhost" || strings.HasSuffix(host, ".localhost") {
				return nil, &noRetry{&innerAddress{addr, "a number, or localhost"}}
			}
			g.mu.Lock()
			g.strange[addr] = g.strange[addr] || redirected
			g.mu.Unlock()
		}
		if next == nil {
			return nil, nil
		}
		u, err := next(req)
		if u != nil && err == nil {
			g.Name(u.String())
		}
		return u, err
	}
}

// numeric tells whether some resolvers take a host for an IPv4 address, such as
// 2130706433, 0x7f.1 and 127.1.
func numeric(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	return last != "" && (strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x"))
}

// dial is d's DialContext, which refuses addresses where g has it.
func (g guard) dial(d *net.Dialer) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		g.mu.Lock()
		guarded := g.strangers || g.strange[strings.ToLower(addr)]
		g.mu.Unlock()
		if !guarded || g.isNamed(addr) {
			return d.DialContext(ctx, network, addr)
		}
		careful := *d
		careful.ControlContext = func(_ context.Context, _, to string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(to)
			if err != nil {
				return err
			}
			_, port, _ := net.SplitHostPort(to)
			return g.check(addr, ap.Addr(), port)
		}
		return careful.DialContext(ctx, network, addr)
	}
}
