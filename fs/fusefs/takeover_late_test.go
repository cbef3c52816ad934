//go:build linux

package fusefs

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/fs"
)

// unanswering is a directory whose look-ups wait.
type unanswering struct {
	fixed
	asked, goOn chan struct{}
}

func (d unanswering) Lookup(context.Context, string) (*fs.Node, error) {
	d.asked <- struct{}{}
	<-d.goOn
	return nil, os.ErrPermission
}

// TestTakeoverHearsNoLateAnswer fails when a daemon that has let go still answers a request
// that it had taken, lets go twice, or the next does not answer that request.
func TestTakeoverHearsNoLateAnswer(t *testing.T) {
	t.Parallel()
	d := unanswering{nil, make(chan struct{}, 1), make(chan struct{})}
	opt := MountOptions{Log: slog.New(slog.DiscardHandler)}
	point, m := mounted(t, &fs.Node{Dir: d}, opt)
	h := hold(t, point, m)
	got := make(chan string, 1)
	go func() {
		b, err := os.ReadFile(filepath.Join(point, "f"))
		if err != nil {
			b = []byte(err.Error())
		}
		got <- string(b)
	}()
	<-d.asked
	h.letGo(t)
	if m.LetGo() == nil {
		t.Error("it lets go twice")
	}
	close(d.goOn)
	select {
	case s := <-got:
		t.Errorf("nobody has the session, and it is answered: %q", s)
	case <-time.After(200 * time.Millisecond):
	}
	h.takeUp(t, &fs.Node{Dir: fixed{{Name: "f", Node: sized("new")}}}, opt)
	if s := <-got; s != "new" {
		t.Errorf("the answer is %q", s)
	}
}
