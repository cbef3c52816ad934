package rest

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// Conn is a connection, of a protocol other than HTTP, that ends where its peer is silent
// for the whole of Settings.Silence while somebody awaits an answer.
type Conn struct {
	net.Conn
	silent *silence

	mu      sync.Mutex // guards what follows
	awaited int
	ended   bool // by silence
}

// Dial connects to a host, which what names in the error of a silence.
func (s Settings) Dial(ctx context.Context, addr, what string) (*Conn, error) {
	if s.Offline {
		return nil, ErrOffline
	}
	c, err := quickAck(s.dialer().DialContext)(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c, silent: &silence{what, s.Silence}}, nil
}

// Await says that an answer is awaited until done is called.
func (c *Conn) Await() (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.awaited++; c.awaited == 1 {
		c.SetReadDeadline(time.Now().Add(c.silent.long))
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.awaited--; c.awaited == 0 {
			c.SetReadDeadline(time.Time{})
		}
	}
}

// Silence is why the connection ended, where its peer was silent; else nil.
func (c *Conn) Silence() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return c.silent
	}
	return nil
}

// Read reads what the peer sends. That is a sign of life.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 && c.awaited > 0 {
		c.SetReadDeadline(time.Now().Add(c.silent.long))
	}
	return n, c.why(err)
}

// Write does not wait for longer than a silence may last.
func (c *Conn) Write(p []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(c.silent.long))
	n, err := c.Conn.Write(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	return n, c.why(err)
}

// why notes a silence. c.mu is held.
func (c *Conn) why(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.ended = true
		return c.silent
	}
	return err
}
