package rest

import (
	"context"
	"net"
	"syscall"
)

// quickAck makes a dialer's connections acknowledge at once what they get. An
// MLflow server sends an answer's headers and its body in two writes and lets
// Nagle's algorithm hold the second until the first is acknowledged, which
// Linux puts off by 40 ms: for every small request on a connection that is
// used again.
func quickAck(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if tcp, ok := c.(*net.TCPConn); ok && err == nil {
			if raw, err := tcp.SyscallConn(); err == nil {
				return &quickAckConn{tcp, raw}, nil
			}
		}
		return c, err
	}
}

type quickAckConn struct {
	*net.TCPConn
	raw syscall.RawConn
}

var _ net.Conn = (*quickAckConn)(nil)

const tcpQuickAck = 12 // TCP_QUICKACK of tcp(7), which the kernel resets by itself

// A body's reads are larger than headRead, and have the sender's next segments
// on their way: an ACK for each would cost more than it gives.
func (c *quickAckConn) Read(p []byte) (int, error) {
	if len(p) > headRead {
		return c.TCPConn.Read(p)
	}
	// An error here costs 40 ms and nothing else.
	c.raw.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpQuickAck, 1)
	})
	return c.TCPConn.Read(p)
}
