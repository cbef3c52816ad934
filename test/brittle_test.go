package test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// overTLS puts TLS before p, as a proxy on the way does, which c breaks: a
// connection may be answered with no TLS at all, or have a bit turned, or end in
// the middle, or show the certificate of a stranger. It gives the address, and
// the file of the certificate to be trusted. c must be set before a request.
func overTLS(t *testing.T, p *proxy, c **chaos) (address, cert string) {
	t.Helper()
	s := httptest.NewUnstartedServer(p.Config.Handler)
	stranger := strangersCertificate(t)
	s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if kind, _ := (*c).draw(0.25, 1); kind == 0 {
			(*c).note("stranger")
			return &tls.Config{Certificates: []tls.Certificate{stranger}}, nil
		}
		return nil, nil
	}}
	s.Listener = brittle{s.Listener, c}
	s.StartTLS()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	cert = filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(cert, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return s.URL, cert
}

func strangersCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	who := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stranger"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(crand.Reader, who, who, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// brittle is a listener some of whose connections break.
type brittle struct {
	net.Listener
	c **chaos
}

func (l brittle) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	kind, x := (*l.c).draw(1, 3)
	at := int(x * x * (3 << 20)) // often in the handshake
	switch kind {
	case 0:
		(*l.c).note("no-TLS")
		go func() {
			defer conn.Close()
			conn.Read(make([]byte, 1000))
			conn.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nno TLS here"))
		}()
		return l.Accept()
	case 1:
		return &brittleConn{Conn: conn, c: *l.c, left: at, turn: true}, nil
	case 2:
		return &brittleConn{Conn: conn, c: *l.c, left: at}, nil
	}
	return conn, nil
}

// brittleConn turns a bit, or ends, when left bytes were sent.
type brittleConn struct {
	net.Conn
	c    *chaos
	left int // -1: it is done
	turn bool
}

func (b *brittleConn) Write(p []byte) (int, error) {
	if b.left < 0 || b.left >= len(p) {
		b.left = max(b.left-len(p), -1)
		return b.Conn.Write(p)
	}
	at := b.left
	b.left = -1
	if !b.turn {
		b.c.note("cut-connection")
		b.Conn.Write(p[:at])
		b.Conn.Close()
		return at, net.ErrClosed
	}
	b.c.note("bit")
	q := bytes.Clone(p)
	q[at] ^= 1 << (at % 8)
	return b.Conn.Write(q)
}
