package rest

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// connections is a server that answers "inner", and counts who connects to it.
func connections(t *testing.T) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	s, n := count.Connections("inner")
	t.Cleanup(s.Close)
	return s, n
}

// redirecting is a server that sends everybody to a URL.
func redirecting(t *testing.T, to string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.RedirectHandler(to, http.StatusTemporaryRedirect))
	t.Cleanup(s.Close)
	return s
}

func envOf(vars map[string]string) Env { return func(name string) string { return vars[name] } }

func bodyBy(t *testing.T, do func(*http.Request) (*http.Response, error), u string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// TestServerLeadsToNoInnerAddress fails when a signed URL, a redirect of the tracking
// server, of a web address or of a store, in whatever form its host is written, has
// this machine connect to an address of an inner network that no setting names; when
// that is tried again; or when the setting is not said.
func TestServerLeadsToNoInnerAddress(t *testing.T) {
	t.Parallel()
	inside, n := connections(t)
	_, port, _ := net.SplitHostPort(inside.Listener.Addr().String())
	log := slog.New(slog.DiscardHandler)
	for _, host := range []string{"127.0.0.1", "127.1.2.3", "localhost", "x.localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "[::1]", "[::]", "2130706433", "0x7f000001", "127.1", "[64:ff9b::7f00:1]"} {
		target := "http://" + host + ":" + port + "/x"
		refused := func(how string, err error) {
			t.Helper()
			var e *innerAddress
			if !errors.As(err, &e) || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "--allow-address") {
				t.Errorf("%s to %s: %v", how, host, err)
			}
		}
		tracking := redirecting(t, target)
		c, err := NewClient(tracking.URL, envOf(nil), log)
		if err != nil {
			t.Fatal(err)
		}
		web, err := NewWebClient(envOf(map[string]string{"MLFLOW_TRACKING_URI": tracking.URL}), log)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_, err = bodyBy(t, c.Do, tracking.URL)
		refused("the tracking server's redirect", err)
		_, err = bodyBy(t, web.Do, tracking.URL)
		refused("a redirect of the web", err)
		_, err = bodyBy(t, web.Do, target)
		refused("a signed URL", err)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("%s is tried for %v", host, took)
		}
		set, err := ReadSettings(envOf(nil))
		if err != nil {
			t.Fatal(err)
		}
		store := &http.Transport{}
		set.Tune(store)
		_, err = bodyBy(t, (&http.Client{Transport: store}).Do, tracking.URL)
		refused("a store's redirect", err)
	}
	if n.Load() > 0 {
		t.Errorf("%d connections to what no setting names", n.Load())
	}
}

// TestNamedAddressesAreReached fails when an address of an inner network that the
// settings name (as an endpoint, a host, a network, a proxy) is refused; or when the
// name of one port opens another.
func TestNamedAddressesAreReached(t *testing.T) {
	t.Parallel()
	inside, _ := connections(t)
	addr := inside.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	for _, vars := range []map[string]string{
		{"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "MLFLOW_REGISTRY_URI": inside.URL},
		{"MLFLOW_S3_ENDPOINT_URL": inside.URL}, {"AWS_ENDPOINT_URL": inside.URL}, {"AWS_ENDPOINT_URL_S3": inside.URL},
		{"STORAGE_EMULATOR_HOST": addr}, {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;BlobEndpoint=" + inside.URL + "/a;X=y"},
		{AllowAddressVariable: "x:1, " + addr}, {AllowAddressVariable: "127.0.0.0/8"}, {AllowAddressVariable: "127.0.0.1"},
	} {
		web, err := NewWebClient(envOf(vars), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := bodyBy(t, web.Do, redirectingFrom(t, web, inside.URL)); got != "inner" {
			t.Errorf("%v: %q, %v", vars, got, err)
		}
	}
	r, err := readReach(envOf(map[string]string{"MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:1", AllowAddressVariable: "minio:9000,host"}))
	if err != nil || r.check("127.0.0.1:"+port, netip.MustParseAddr("127.0.0.1"), port) == nil {
		t.Error("one port opens another", err)
	}
	if !r.isNamed("MinIO:9000") || r.isNamed("minio:9001") || !r.isNamed("host:1") {
		t.Error("names of hosts are not taken as they are meant")
	}
	for _, bad := range []string{"http://x", "a b", "10.0.0.0/99"} {
		if _, err := readReach(envOf(map[string]string{AllowAddressVariable: bad})); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// redirectingFrom is a server that the client may reach, and that redirects.
func redirectingFrom(t *testing.T, c *Client, to string) string {
	u := redirecting(t, to).URL
	c.Reach().Name(u)
	return u
}

// TestProxyIsReachedAndServesNoInnerAddress fails when a proxy of the user's on an
// inner network is refused, or is asked for an inner address that a server names.
func TestProxyIsReachedAndServesNoInnerAddress(t *testing.T) {
	t.Parallel()
	proxy, n := connections(t)
	at, _ := url.Parse(proxy.URL)
	set, err := ReadSettings(envOf(nil))
	if err != nil {
		t.Fatal(err)
	}
	set.strangers = true
	tr := &http.Transport{Proxy: http.ProxyURL(at)}
	set.Tune(tr)
	do := (&http.Client{Transport: tr}).Do
	for _, inner := range []string{"http://169.254.169.254/latest", "http://[fd00:ec2::254]/", "http://2852039166/", "http://10.0.0.1/"} {
		if _, err := bodyBy(t, do, inner); !errors.Is(err, fs.ErrPermission) || n.Load() > 0 {
			t.Errorf("%s: %v, %d connections", inner, err, n.Load())
		}
	}
	if got, err := bodyBy(t, do, "http://store.example/x"); got != "inner" {
		t.Errorf("by the proxy: %q, %v", got, err)
	}
}

// TestInnerAddresses fails when an address of an inner network is taken for a public
// one, so that a host name may lead there, or the other way round.
func TestInnerAddresses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.9.9", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.127.255.255", "224.0.0.1", "239.1.1.1", "255.255.255.255",
		"::", "::1", "::ffff:10.0.0.1", "::127.0.0.1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "ff02::1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"} {
		if !inner(netip.MustParseAddr(s).WithZone("").Unmap()) {
			t.Errorf("%s is taken for a public address", s)
		}
	}
	for _, s := range []string{"1.1.1.1", "11.0.0.1", "172.32.0.1", "192.169.0.1", "100.128.0.1", "52.216.1.1", "2600:1f18::1", "64:ff9b::808:808"} {
		if inner(netip.MustParseAddr(s)) {
			t.Errorf("%s is taken for an inner address", s)
		}
	}
}
