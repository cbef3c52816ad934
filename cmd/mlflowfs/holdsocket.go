package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

// A mount is two processes (see [holder]), which talk by a socket that keeps packets apart:
// each is a message in JSON, and may bring the descriptors of a session.

// holderFD is the variable that names the daemon's end of the socket.
const holderFD = "MLFLOWFS_HOLDER_FD"

// message is one packet. What a side does not know it passes over: the other may be of
// another version.
type message struct {
	Kind kind `json:"kind"`

	Begin   *beginning `json:"begin,omitempty"`   // with doBegin
	Upgrade *upgraded  `json:"upgrade,omitempty"` // with doTell

	Point  string     `json:"point,omitempty"`   // with hasMounted: where
	Log    string     `json:"log,omitempty"`     // with hasMounted: the daemon's log file, if it has one
	AsJSON bool       `json:"as_json,omitempty"` // with Log: of what form its lines are
	Level  slog.Level `json:"level,omitempty"`   // with hasMounted: of the log
	Code   int        `json:"code,omitempty"`    // with hasEnded: of the exit
	Error  string     `json:"error,omitempty"`   // with hasFailed
	Refuse bool       `json:"refuse,omitempty"`  // with hasFailed: it is the session that can't be taken up
	Words  string     `json:"words,omitempty"`   // with hasWords: for systemd
	Parent []byte     `json:"parent,omitempty"`  // with hasTold: for who waits for the mount

	session fusefs.Session // with doBegin, doTakeUp and hasMounted
}

type kind string

// What the holder has the daemon do.
const (
	doBegin  kind = "begin"   // the first message: see beginning
	doEnd    kind = "end"     // a signal: the first has it unmount, the second wait no longer for users
	doLetGo  kind = "let go"  // stop answering
	doTakeUp kind = "take up" // go on with the session
	doLeave  kind = "leave"   // exit, and leave the mount alone
	doTell   kind = "tell"    // how an upgrade went
)

// What the daemon has done.
const (
	hasMounted kind = "mounted"
	hasProven  kind = "proven"  // it could take the session up
	hasServing kind = "serving" // it has taken the session up
	hasLetGo   kind = "let go"
	hasEnded   kind = "ended"
	hasFailed  kind = "failed" // it could not take the session up, or let it go
	hasWords   kind = "notify"
	hasTold    kind = "told"
)

// task is what a daemon is started for.
type task string

const (
	toMount  task = "mount"
	toTakeUp task = "take up" // the session of one that has died
	toProve  task = "prove"   // that it can take up the session of one that answers still
)

// beginning is what a daemon is told first.
type beginning struct {
	Task     task          `json:"task"`
	Point    string        `json:"point,omitempty"`  // of a mount that is there
	Served   bool          `json:"served,omitempty"` // the mount serves one program (lifeFD), and ends with it
	Parent   bool          `json:"parent,omitempty"` // somebody waits for the mount (readyFD)
	Notify   bool          `json:"notify,omitempty"` // systemd wants to be told
	Watchdog time.Duration `json:"watchdog,omitempty"`
	Upgrade  *upgraded     `json:"upgrade,omitempty"` // the last one
}

// upgraded is how an upgrade went.
type upgraded struct {
	Time  time.Time `json:"time"`
	Error string    `json:"error,omitempty"`
}

// packetSize is that of the largest message, and packetWait how long one may take to be
// sent to a process that does not listen.
const (
	packetSize = 64 << 10
	packetWait = time.Second
)

// control is one end of the socket.
type control struct {
	conn *net.UnixConn
	mu   sync.Mutex // one sends at a time
}

func newControl(f *os.File) (*control, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("it is no socket of this machine")
	}
	return &control{conn: conn}, nil
}

func (c *control) close() { c.conn.Close() }

// send sends a message, and copies of its session's descriptors.
func (c *control) send(m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > packetSize {
		return fmt.Errorf("a message of %d bytes is too long", len(b))
	}
	var rights []byte
	var fds []int
	for _, f := range []*os.File{m.session.Device, m.session.File} {
		if f != nil {
			fds = append(fds, int(f.Fd()))
		}
	}
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(packetWait))
	_, _, err = c.conn.WriteMsgUnix(b, rights, nil)
	return err
}

// receive waits for a message: io.EOF when the other side has ended.
func (c *control) receive() (m message, err error) {
	b, rights := make([]byte, packetSize), make([]byte, syscall.CmsgSpace(4*2))
	n, r, flags, _, err := c.conn.ReadMsgUnix(b, rights)
	if errors.Is(err, syscall.ECONNRESET) { // it has ended, and has not read all: what it said comes after
		n, r, flags, _, err = c.conn.ReadMsgUnix(b, rights)
	}
	if err != nil {
		return m, err
	}
	files, err := filesOf(rights[:r])
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err == nil && flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
		err = errors.New("a message is too long")
	}
	if err == nil {
		err = json.Unmarshal(b[:n], &m)
	}
	if err == nil && len(files) > 0 && m.Kind != doBegin && m.Kind != doTakeUp && m.Kind != hasMounted {
		err = errors.New("a message brings files that it has no use for")
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return message{}, err
	}
	if len(files) > 0 {
		m.session.Device = files[0]
	}
	if len(files) > 1 {
		m.session.File = files[1]
	}
	return m, nil
}

// filesOf are the files of a packet. They are closed in programs that are started.
func filesOf(rights []byte) (files []*os.File, err error) {
	if len(rights) == 0 {
		return nil, nil
	}
	all, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for _, one := range all {
		fds, err := syscall.ParseUnixRights(&one)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "session"))
		}
	}
	return files, nil
}
