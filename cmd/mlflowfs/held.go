package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

// held is the daemon's side of the socket to its holder.
type held struct {
	*control
	beginning
	session fusefs.Session                           // of beginning
	orders  chan message                             // of an upgrade; closed with the holder's end
	life    io.Reader                                // a byte for each doEnd, and the end with the holder's
	told    atomic.Pointer[atomic.Pointer[upgraded]] // of who shows how the last upgrade went
	serving bool                                     // it has taken the session up
}

// heldBy takes the socket that the holder has given, and waits for its first word.
func heldBy(f *os.File) (*held, error) {
	c, err := newControl(f)
	if err != nil {
		return nil, err
	}
	m, err := c.receive()
	if err == nil && (m.Kind != doBegin || m.Begin == nil) {
		err = fmt.Errorf("its first word is %q", m.Kind)
	}
	if err != nil {
		return nil, fmt.Errorf("the holder of the mount does not say what to do: %w", err)
	}
	life, ends := io.Pipe()
	h := &held{control: c, beginning: *m.Begin, session: m.session, orders: make(chan message, 4), life: life}
	go h.listen(ends)
	return h, nil
}

// listen hears the holder until that ends.
func (h *held) listen(ends *io.PipeWriter) {
	defer ends.Close()
	defer close(h.orders)
	for {
		m, err := h.receive()
		if err != nil {
			return
		}
		switch m.Kind {
		case doEnd:
			go ends.Write([]byte{'.'}) // who does not listen yet is no reason not to
		case doTell:
			if to := h.told.Load(); to != nil {
				to.Store(m.Upgrade)
			}
		case doLetGo, doTakeUp, doLeave:
			h.orders <- m
		}
	}
}

// takesUp tells whether the mount is there, and was another daemon's.
func (h *held) takesUp() bool { return h != nil && h.Task != toMount }

// firstNumber is what numbers begin behind that no daemon of the mount may give twice.
func (p *process) firstNumber() uint64 {
	if !p.held.takesUp() {
		return 0 // the same in each mount
	}
	return uint64(time.Now().UnixNano())
}

// fails tells the holder why the mount, which is there, can't be taken up.
func (h *held) fails(err error) (told bool) {
	if !h.takesUp() || h.serving {
		return false
	}
	h.failed(err, false)
	return true
}

// Write tells who waits for the mount; Close is nothing, since the holder does that.
func (h *held) Write(p []byte) (int, error) {
	if err := h.send(message{Kind: hasTold, Parent: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (h *held) Close() error { return nil }

// failed tells that the session was not taken up, or let go.
func (h *held) failed(err error, refused bool) {
	h.send(message{Kind: hasFailed, Error: err.Error(), Refuse: refused})
}

// exit ends the process.
func (p *process) exit(code int) {
	if p.held != nil {
		p.held.send(message{Kind: hasEnded, Code: code})
	}
	os.Exit(code)
}

// errLeft is the end of a daemon whose mount another one answers.
var errLeft = exitError{nil, 0}

// takeUp goes on with the mount of another daemon, which has died, or lets go of it when this
// one has shown that it could take it up.
func (o *options) takeUp(ctx context.Context, log *slog.Logger) error {
	h := o.held
	d, err := o.openDaemon(ctx, log)
	if err != nil {
		return err
	}
	defer d.close()
	d.point = h.Point
	o.levels(log)
	dropRights(log)
	opt := d.mountOptions(o, log)
	if err := fusefs.CheckSession(h.session, opt); err != nil {
		h.failed(err, true)
		return exitError{nil, exitFailed}
	}
	if h.Task == toProve {
		h.send(message{Kind: hasProven})
		switch m, ok := h.next(ctx); {
		case !ok || m.Kind != doTakeUp:
			return exitError{nil, exitFailed} // it is the other one's still
		default:
			h.session.Close()
			h.session = m.session
		}
	}
	m, err := h.resume(d.point, d.root, opt)
	if err != nil {
		return exitError{nil, exitFailed}
	}
	err = d.stay(ctx, o, m, opt, log)
	if err != errLeft && o.getenv(ownPoint) != "" {
		os.Remove(d.point)
	}
	return err
}

// next is the holder's next order in an upgrade. There is none when ctx has ended.
func (h *held) next(ctx context.Context) (m message, ok bool) {
	select {
	case m, ok = <-h.orders:
	case <-ctx.Done():
	}
	return m, ok
}

// resume takes the session up, and tells the holder so.
func (h *held) resume(point string, root *fs.Node, opt fusefs.MountOptions) (*fusefs.Mounted, error) {
	m, err := fusefs.TakeUp(point, root, h.session, opt)
	h.session.Close() // m has its own
	if err != nil {
		h.failed(err, true)
		return nil, err
	}
	h.session, h.serving = fusefs.Session{}, true
	h.send(message{Kind: hasServing})
	return m, nil
}

// hand gives the mount to another daemon, by the holder's word. It gives the mount back
// where that one can't take it, or errLeft.
func (d *daemon) hand(ctx context.Context, h *held, m *fusefs.Mounted, opt fusefs.MountOptions, log *slog.Logger) (*fusefs.Mounted, error) {
	if err := m.LetGo(); err != nil {
		log.Warn("the mount can't be handed to another daemon", "err", err)
		h.failed(err, false)
		return m, nil
	}
	h.send(message{Kind: hasLetGo})
	order, ok := h.next(context.WithoutCancel(ctx))
	switch {
	case !ok: // the holder is gone, and the mount nobody's, or about to be
		fusefs.Unmount(d.point, true)
		return nil, exitError{nil, exitFailed}
	case order.Kind == doLeave:
		return nil, errLeft
	case order.Kind != doTakeUp:
		return nil, errors.New("the holder says neither to leave nor to take up the mount")
	}
	h.session = order.session
	m, err := h.resume(d.point, d.root, opt)
	if err != nil {
		return nil, exitError{nil, exitFailed}
	}
	log.Info("goes on with the mount: the other daemon could not take it")
	return m, nil
}

// notify tells systemd something (sd_notify(3)); ok says that it wants to be told.
func (h *held) notify(words string) (ok bool, err error) {
	if !h.Notify {
		return false, nil
	}
	return true, h.send(message{Kind: hasWords, Words: words})
}

// shows tells the holder that the mount answers.
func (h *held) shows(d *daemon, o *options, m *fusefs.Mounted) {
	h.send(message{Kind: hasMounted, Point: d.point, Log: o.Log.File, AsJSON: o.Log.Format == "json", Level: o.Log.Level, session: m.Session()})
}

// retryListen is how often an address is asked for that another daemon has still.
const retryListen = 200 * time.Millisecond
