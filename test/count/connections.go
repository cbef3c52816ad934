package count

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
)

// Connections is a server that nobody should ask: it answers everything with the
// same words, and counts who connects. The caller ends it by Close.
func Connections(answer string) (s *httptest.Server, n *atomic.Int64) {
	n = new(atomic.Int64)
	s = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) }))
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			n.Add(1)
		}
	}
	s.Start()
	return s, n
}
