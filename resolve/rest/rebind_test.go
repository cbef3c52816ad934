package rest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// resolving has host names of the test resolve to the addresses that hosts names, and
// others to nothing. It is the whole process's, until the test ends.
func resolving(t *testing.T, hosts map[string]string) {
	t.Helper()
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe() // no packets: each message has its length before it, as by TCP
		go func() {
			defer server.Close()
			for {
				var length [2]byte
				if _, err := io.ReadFull(server, length[:]); err != nil {
					return
				}
				question := make([]byte, binary.BigEndian.Uint16(length[:]))
				if _, err := io.ReadFull(server, question); err != nil {
					return
				}
				answer, err := answered(question, hosts)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := server.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
					return
				}
			}
		}()
		return client, nil
	}}
}

// answered is a DNS server's answer to a question.
func answered(question []byte, hosts map[string]string) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionAvailable: true}
	m.Additionals = nil
	ip, err := netip.ParseAddr(hosts[strings.TrimSuffix(m.Questions[0].Name.String(), ".")])
	r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET}}
	switch kind := m.Questions[0].Type; {
	case err != nil:
		m.RCode = dnsmessage.RCodeNameError
	case kind == dnsmessage.TypeA && ip.Is4():
		r.Body = &dnsmessage.AResource{A: ip.As4()}
	case kind == dnsmessage.TypeAAAA && ip.Is6():
		r.Body = &dnsmessage.AAAAResource{AAAA: ip.As16()}
	}
	if r.Body != nil {
		m.Answers = append(m.Answers, r)
	}
	return m.Pack()
}

// TestNameOfAnInnerAddressIsRefusedAtTheConnection fails when a signed URL, or a redirect
// of the tracking server or of a store, names a host that resolves to an inner address, and
// that address is connected to; or when a host that a setting names is not reached. It
// changes how the process resolves names, so it runs alone.
func TestNameOfAnInnerAddressIsRefusedAtTheConnection(t *testing.T) {
	inside, n := connections(t)
	_, port, _ := net.SplitHostPort(inside.Listener.Addr().String())
	hosts := map[string]string{
		"loopback.example": "127.0.0.1", "loopback6.example": "::1", "mapped.example": "::ffff:127.0.0.1", "any.example": "0.0.0.0",
		"metadata.example": "169.254.169.254", "metadata6.example": "fd00:ec2::254", "private.example": "10.0.0.1", "nat64.example": "64:ff9b::a9fe:a9fe",
	}
	resolving(t, hosts)
	client := func(tracking, allowed string) *Client {
		t.Helper()
		vars := envOf(map[string]string{AllowAddressVariable: allowed, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"})
		c, err := NewWebClient(vars, quiet)
		if tracking != "" {
			c, err = NewClient(tracking, vars, quiet)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for host, ip := range hosts {
		target := "http://" + host + ":" + port + "/x"
		near := redirecting(t, target)
		set, err := ReadSettings(envOf(nil))
		if err != nil {
			t.Fatal(err)
		}
		store := &http.Transport{}
		set.Tune(store)
		for how, by := range map[string]struct {
			do func(*http.Request) (*http.Response, error)
			at string
		}{
			"a signed URL":                   {client("", "").Do, target},
			"the tracking server's redirect": {client(near.URL, "").Do, near.URL},
			"a store's redirect":             {(&http.Client{Transport: store}).Do, near.URL},
		} {
			_, err := bodyBy(t, by.do, by.at)
			var e *innerAddress
			if !errors.As(err, &e) || !errors.Is(err, fs.ErrPermission) || e.host != host+":"+port || netip.MustParseAddr(e.ip) != netip.MustParseAddr(ip).Unmap() {
				t.Errorf("%s to %s, which is %s: %v", how, host, ip, err)
			}
		}
	}
	if n.Load() > 0 {
		t.Errorf("%d connections to what no setting names", n.Load())
	}
	for _, allowed := range []string{"loopback.example", "loopback.example:" + port, "127.0.0.0/8"} {
		if got, err := bodyBy(t, client("", allowed).Do, "http://loopback.example:"+port); got != "inner" {
			t.Errorf("with %s allowed: %q, %v", allowed, got, err)
		}
	}
}
