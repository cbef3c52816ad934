package fault

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
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// OverTLS puts TLS before o, as a proxy on the way does, which c breaks: a
// connection may be answered with no TLS at all, or have a bit turned, or end in
// the middle, or show the certificate of a stranger. ca is the certificate to be
// trusted, as PEM. The caller ends it by stop.
func OverTLS(o *count.Origin, c *Chaos) (address string, ca []byte, stop func(), err error) {
	stranger, err := strangersCertificate()
	if err != nil {
		return "", nil, nil, err
	}
	s := httptest.NewUnstartedServer(o.Config.Handler)
	s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if kind, _ := c.draw(0.25, 1); kind == 0 {
			c.Met.Add("stranger")
			return &tls.Config{Certificates: []tls.Certificate{stranger}}, nil
		}
		return nil, nil
	}}
	s.Listener = brittle{s.Listener, c}
	s.StartTLS()
	ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return s.URL, ca, func() {
		s.CloseClientConnections()
		s.Close()
	}, nil
}

func strangersCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	who := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stranger"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(crand.Reader, who, who, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// brittle is a listener some of whose connections break.
type brittle struct {
	net.Listener
	c *Chaos
}

func (l brittle) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	kind, x := l.c.draw(1, 3)
	at := int(x * x * (3 << 20)) // often in the handshake
	switch kind {
	case 0:
		l.c.Met.Add("no-TLS")
		go func() {
			defer conn.Close()
			conn.Read(make([]byte, 1000))
			conn.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nno TLS here"))
		}()
		return l.Accept()
	case 1:
		return &brittleConn{Conn: conn, c: l.c, left: at, turn: true}, nil
	case 2:
		return &brittleConn{Conn: conn, c: l.c, left: at}, nil
	}
	return conn, nil
}

// brittleConn turns a bit, or ends, when left bytes were sent.
type brittleConn struct {
	net.Conn
	c    *Chaos
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
		b.c.Met.Add("cut-connection")
		b.Conn.Write(p[:at])
		b.Conn.Close()
		return at, net.ErrClosed
	}
	b.c.Met.Add("bit")
	q := bytes.Clone(p)
	q[at] ^= 1 << (at % 8)
	return b.Conn.Write(q)
}
