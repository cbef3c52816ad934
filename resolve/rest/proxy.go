package rest

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// proxies chooses a proxy as Python's requests does: by <scheme>_proxy, else
// all_proxy, each in lower case before upper case, unless no_proxy names the host.
// This machine's own addresses need none: there, requests would ask the proxy. A
// proxy's user without a password, and a password without one, are left out.
func proxies(env Env) func(*http.Request) (*url.URL, error) {
	variable := func(name string) string { return cmp.Or(env(name), env(strings.ToUpper(name))) }
	return func(req *http.Request) (*url.URL, error) {
		host := req.URL.Hostname()
		if ip := net.ParseIP(host); host == "localhost" || ip.IsLoopback() {
			return nil, nil
		}
		name := req.URL.Scheme + "_proxy"
		value := variable(name)
		if name == "http_proxy" && env("REQUEST_METHOD") != "" {
			value = env(name) // HTTP_PROXY may be a header that a web server was sent
		}
		value = cmp.Or(value, variable("all_proxy"))
		if value == "" || unproxied(host, req.URL.Port(), variable("no_proxy")) {
			return nil, nil
		}
		if !strings.Contains(value, "://") {
			value = "http://" + strings.TrimPrefix(value, "//")
		}
		u, err := url.Parse(value)
		if err != nil || u.Host == "" {
			// The parse error would quote it, and it may hold a password.
			return nil, &noRetry{fmt.Errorf("%s (or its upper case, or all_proxy) is no address of a proxy", name)}
		}
		if _, ok := u.User.Password(); !ok || u.User.Username() == "" {
			u.User = nil // requests sends it nothing
		}
		return u, nil
	}
}

// unproxied tells whether a host is among those that no_proxy names: domains, with or
// without a port, that its name ends in; IPv4 addresses and networks; * for all.
func unproxied(host, port, list string) bool {
	if list == "*" {
		return true
	}
	host = strings.ToLower(host)
	ip, err := netip.ParseAddr(host)
	isIPv4 := err == nil && ip.Is4()
	for _, name := range strings.Split(strings.ReplaceAll(list, " ", ""), ",") {
		name = strings.ToLower(strings.TrimLeft(name, "."))
		if name == "" {
			continue
		}
		if network, err := netip.ParsePrefix(name); isIPv4 && err == nil && network.Contains(ip) {
			return true
		}
		for _, h := range []string{host, host + ":" + port} {
			if h == name || strings.HasSuffix(h, "."+name) && !(isIPv4 && h != host) {
				return true
			}
		}
	}
	return false
}
