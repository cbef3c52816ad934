package fusefs

import (
	"os"
	"testing"

	"github.com/mlflowfs/mlflowfs/fs"
)

// holder holds a session while daemons come and go.
type holder struct {
	point string
	s     Session
	m     *Mounted // the daemon that answers, or did last
}

// hold has a test hold the session of a mount, and unmount it in the end.
func hold(t *testing.T, point string, m *Mounted) *holder {
	t.Helper()
	s := m.Session()
	for _, f := range []**os.File{&s.Device, &s.File} {
		var err error
		if *f, err = duplicate(*f); err != nil {
			t.Fatal(err)
		}
	}
	h := &holder{point, s, m}
	t.Cleanup(func() {
		s.Device.Close()
		s.File.Close()
		unmount(t, h.m)
	})
	return h
}

func (h *holder) letGo(t *testing.T) {
	t.Helper()
	if err := h.m.LetGo(); err != nil {
		t.Fatal(err)
	}
}

func (h *holder) takeUp(t *testing.T, root *fs.Node, opt MountOptions) {
	t.Helper()
	m, err := TakeUp(h.point, root, h.s, opt)
	if err != nil {
		t.Fatal(err)
	}
	h.m = m
}
