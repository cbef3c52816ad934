package test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// objectStores are real object stores, each a process of its own: versitygw
// (S3, with and without TLS on the same directory), fake-gcs-server, Azurite, OpenSSH;
// and an FTP server, which MLflow reads and we do not. They start when the
// first test wants them. Each has one bucket.
type objectStores struct {
	once  sync.Once
	err   error
	procs []*exec.Cmd
	log   *count.Log

	dir            string
	s3, s3tls      string // host:port
	gcs, azure     string
	ftp            string
	sftp           *sshd
	ca             string // file with the certificate of s3tls
	accountAddress string
}

var objects = &objectStores{log: &count.Log{}}

const (
	bucket      = "bkt"
	s3Key       = "accesskey-of-the-tests"
	s3Secret    = "s3cret-of-the-S3-store"
	ftpPassword = "s3cret-ftp"
	// account and its key are those that every Azurite has.
	account = "devstoreaccount1"
	azKey   = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

func theObjects(t *testing.T) *objectStores {
	t.Helper()
	if err := objects.started(); err != nil {
		t.Fatal(err)
	}
	return objects
}

// started starts them once.
func (o *objectStores) started() error {
	o.once.Do(func() { o.err = o.start() })
	return o.err
}

func (o *objectStores) start() (err error) {
	if o.dir, err = os.MkdirTemp(work, "objects-"); err != nil {
		return err
	}
	for _, d := range []string{"s3/" + bucket, "azure", "ftp", "sftp"} {
		if err := os.MkdirAll(filepath.Join(o.dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := o.certify(); err != nil {
		return err
	}
	for _, addr := range []*string{&o.s3, &o.s3tls, &o.gcs, &o.azure, &o.ftp} {
		port, err := freePort()
		if err != nil {
			return err
		}
		*addr = fmt.Sprintf("127.0.0.1:%d", port)
	}
	_, gcsPort, _ := strings.Cut(o.gcs, ":")
	_, azPort, _ := strings.Cut(o.azure, ":")
	_, ftpPort, _ := strings.Cut(o.ftp, ":")
	o.accountAddress = "http://" + o.azure + "/" + account
	bin := func(name string) string { return filepath.Join(testenv(), "bin", name) }
	s3 := []string{"-a", s3Key, "-s", s3Secret, "--keep-alive", "-q"}
	posix := []string{"posix", filepath.Join(o.dir, "s3")}
	for _, c := range []*exec.Cmd{
		exec.Command(bin("versitygw"), join(s3, []string{"-p", o.s3}, posix)...),
		exec.Command(bin("versitygw"), join(s3, []string{"-p", o.s3tls, "--cert", o.ca, "--key", o.ca}, posix)...),
		exec.Command(bin("fake-gcs-server"), "-scheme", "http", "-host", "127.0.0.1", "-port", gcsPort, "-backend", "memory", // on a disk "//" is "/"
			"-external-url", "http://"+o.gcs, "-public-host", o.gcs),
		exec.Command(filepath.Join(testenv(), "azurite", "node_modules", ".bin", "azurite-blob"), "--silent", "--disableTelemetry", "--skipApiVersionCheck",
			"--blobHost", "127.0.0.1", "--blobPort", azPort, "--location", filepath.Join(o.dir, "azure")),
		exec.Command(release("mlflow3").bin("python"), "-m", "pyftpdlib", "-w", "-i", "127.0.0.1", "-p", ftpPort, "-d", filepath.Join(o.dir, "ftp"), "-u", "user", "-P", ftpPassword),
	} {
		c.Stdout, c.Stderr = o.log, o.log
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := c.Start(); err != nil {
			return err
		}
		o.procs = append(o.procs, c)
	}
	for _, addr := range []string{o.s3, o.s3tls, o.gcs, o.azure, o.ftp} {
		for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("an object store does not come up: %w\n%s", err, tail(o.log.String()))
			}
		}
	}
	if o.sftp, err = startSSHD(work); err != nil {
		return err
	}
	resp, err := http.Post("http://"+o.gcs+"/storage/v1/b?project=x", "application/json", strings.NewReader(`{"name":"`+bucket+`"}`))
	if err != nil {
		return err
	}
	resp.Body.Close()
	make := exec.Command(release("mlflow3").bin("python"), "-c", `
import os
from azure.storage.blob import BlobServiceClient
BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"]).create_container("`+bucket+`")`)
	make.Env = append(pythonEnv(), o.azureEnv()...)
	if out, err := make.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(string(out)))
	}
	return nil
}

func join(parts ...[]string) (out []string) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func (o *objectStores) stop() {
	for _, c := range o.procs {
		endGroup(c)
	}
	if o.sftp != nil {
		o.sftp.stop()
	}
}

// certify makes a certificate for 127.0.0.1 that signs itself.
func (o *objectStores) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the tests' S3"}, NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	err = errors.Join(pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	o.ca = filepath.Join(o.dir, "cert.pem")
	return errors.Join(err, os.WriteFile(o.ca, b.Bytes(), 0o600))
}

// s3Env is what an S3 client needs, at addr.
func s3Env(addr string) []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s3Key, "AWS_SECRET_ACCESS_KEY=" + s3Secret, "MLFLOW_S3_ENDPOINT_URL=http://" + addr}
}

func (o *objectStores) azureEnv() []string {
	return []string{"AZURE_STORAGE_CONNECTION_STRING=DefaultEndpointsProtocol=http;AccountName=" + account + ";AccountKey=" + azKey + ";BlobEndpoint=" + o.accountAddress + ";"}
}

// env is what a client of all the stores needs.
func (o *objectStores) env() []string {
	return join(s3Env(o.s3), o.azureEnv(), []string{"STORAGE_EMULATOR_HOST=http://" + o.gcs, "AWS_CA_BUNDLE=" + o.ca, "REQUESTS_CA_BUNDLE=" + o.ca})
}

// origin is a run and a model whose artifacts lie in one place.
type origin struct {
	server  *server
	release release
	via     *count.Origin // before server; nil: none

	Run, Odd, URI, Model string
	ModelID              string `json:"model_id"`

	once   sync.Once
	theirs map[string]*fetched // what mlflow.artifacts gives
	err    error
}

// url is the address at which the origin's server is asked.
func (o *origin) url() string {
	if o.via != nil {
		return o.via.URL
	}
	return o.server.url()
}

// origins are servers that hold the same tree at every kind of place.
type origins struct {
	once  sync.Once
	err   error
	at    map[string]*origin
	local string
}

var theOrigins = &origins{at: map[string]*origin{}}

func originAt(t *testing.T, name string) *origin {
	t.Helper()
	if err := theOrigins.made(); err != nil {
		t.Fatal(err)
	}
	return theOrigins.at[name]
}

// made makes them once.
func (x *origins) made() error {
	x.once.Do(func() {
		if x.err = objects.started(); x.err == nil {
			x.err = x.make(objects)
		}
	})
	return x.err
}

// azureHost is an account's host as a URI names it. Azurite is found by the
// connection string.
const azureHost = "@" + account + ".blob.core.windows.net"

func (x *origins) make(o *objectStores) error {
	var err error
	if x.local, err = os.MkdirTemp(work, "local-artifacts-"); err != nil {
		return err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for r, locations := range map[release]map[string]string{
		"mlflow3": {
			"s3":     "s3://" + bucket + "/own",
			"gs":     "gs://" + bucket + "/own",
			"wasbs":  "wasbs://" + bucket + azureHost + "/own",
			"r2":     "r2://" + bucket + "@" + o.s3tls + "/r2",
			"path":   x.local,
			"sftp":   o.sftp.uri("root", filepath.Join(o.dir, "sftp")),
			"ftp":    "ftp://user:" + ftpPassword + "@" + o.ftp + "/own",
			"served": "",
		},
		"mlflow2": {"served 2.22": ""},
	} {
		wg.Go(func() {
			s, serr := onS3.ofRelease(r)
			mu.Lock()
			defer mu.Unlock()
			if serr != nil {
				err = serr
				return
			}
			in, _ := json.Marshal(locations)
			out, serr := runPython(r, o.env(), s.url(), string(in), "origins.py", "seed")
			if serr != nil {
				err = serr
				return
			}
			at := map[string]*origin{}
			if serr := json.Unmarshal(out, &at); serr != nil {
				err = serr
				return
			}
			for name, or := range at {
				or.server, or.release = s, r
				x.at[name] = or
			}
			if served := at["served"]; served != nil {
				p, serr := count.NewOrigin(s.url(), "/")
				if serr != nil {
					err = serr
					return
				}
				p.Break(refuseBytes(), nil)
				x.at[presigned] = &origin{server: s, release: r, via: p, Run: served.Run, Odd: served.Odd, URI: served.URI, Model: served.Model, ModelID: served.ModelID}
			}
		})
	}
	wg.Wait()
	return err
}

func (x *origins) stop() {
	for _, or := range x.at {
		if or.via != nil {
			or.via.Stop()
		}
	}
}

// runPython runs a script of the tests that prints JSON on its last line.
func runPython(r release, env []string, tracking, stdin, script string, args ...string) ([]byte, error) {
	path, err := filepath.Abs(script)
	if err != nil {
		return nil, err
	}
	out, err := r.run(work, append(append(pythonEnv(), "MLFLOW_TRACKING_URI="+tracking), env...), stdin, append([]string{path}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", script, args, err)
	}
	return []byte(lastLine(out)), nil
}

// lastLine is where a script prints JSON: what MLflow says stands before it.
func lastLine(out string) string {
	out = strings.TrimRight(out, "\n")
	return out[strings.LastIndexByte(out, '\n')+1:]
}
