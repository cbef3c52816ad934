//go:build !linux

package rest

import (
	"context"
	"net"
)

// quickAck has nothing to do where acknowledgements are not put off so long.
func quickAck(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return dial
}
