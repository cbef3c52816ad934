package meta

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unacknowledged is how long what was sent may lack an acknowledgement of the peer's kernel,
// busy as the peer may be.
const unacknowledged = 5 * time.Second

// endUnacknowledged ends a connection whose peer acknowledges nothing (TCP_USER_TIMEOUT,
// tcp(7)): keep-alives are sent only where nothing else waits to be acknowledged.
func endUnacknowledged(network, _ string, c syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	return c.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds())) // without it, it takes longer
	})
}
