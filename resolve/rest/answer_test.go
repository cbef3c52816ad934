package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestAnswerThatNeverEndsIsEnded fails when a server that sends JSON for ever fills
// the daemon's memory.
func TestAnswerThatNeverEndsIsEnded(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(ended)
		io.WriteString(w, `{"experiments":[{}`)
		for {
			if _, err := io.WriteString(w, `,{"name":"n"}`); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	c, err := NewClient(s.URL, env(nil), quiet)
	if err != nil {
		t.Fatal(err)
	}
	c.most = 1 << 20
	var tooLong *http.MaxBytesError
	var out struct{ Experiments []struct{} }
	if err := c.JSON(context.Background(), "/", nil, nil, &out); !errors.As(err, &tooLong) {
		t.Error(err)
	}
	<-ended // nobody reads on
}
