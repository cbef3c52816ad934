// Package cloudtest stands in for a cloud: tests ask the cloud's own hosts by their
// names, through a proxy, and the certificates of an authority of its own.
package cloudtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Cloud is a cloud. It ends with its test.
type Cloud struct {
	Proxy string // the address of the one way to its hosts
	CA    string // a file with the certificate of its authority
}

// New makes a cloud whose hosts h answers for.
func New(t *testing.T, h http.Handler, hosts ...string) Cloud {
	t.Helper()
	cert, der := certificate(t, hosts)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT alone", http.StatusMethodNotAllowed)
			return
		}
		behind, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			behind.Close()
			return
		}
		// Now, and not before: of what the client says next the server would take a byte.
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			io.Copy(behind, conn)
			behind.Close()
		}()
		io.Copy(conn, behind)
		conn.Close()
	}))
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		proxy.Close()
	})
	return Cloud{proxy.URL, ca}
}

// certificate is one for hosts, which signs itself.
func certificate(t *testing.T, hosts []string) (c tls.Certificate, der []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	who := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a cloud"}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	if der, err = x509.CreateCertificate(rand.Reader, who, who, &key.PublicKey, key); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, der
}
