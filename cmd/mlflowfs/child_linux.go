package main

import (
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

// child is a daemon, as the holder knows it.
type child struct {
	*control
	process *os.Process
	task    task
	serving bool
	ended   *int     // the exit code that it has named
	failed  *message // why it can't take the session up
	how     string   // it has ended
	dying   int      // how often it was seen so
	dead    bool
}

// why is why it has ended.
func (c *child) why() string {
	if c.failed != nil {
		return c.failed.Error
	}
	return c.how
}

// event is what a child has said, or its end.
type event struct {
	of    *child
	said  message
	err   error            // there is nothing to be heard any more
	ended *os.ProcessState // it has ended
}

// start starts a daemon.
func (h *holder) start(program string, to task) (*child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "holder")
	defer theirs.Close()
	ours, err := newControl(os.NewFile(uintptr(pair[0]), "daemon"))
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{Path: program, Args: os.Args, Env: append(slices.Clone(h.environ), holderFD+"=3"), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	cmd.ExtraFiles = []*os.File{theirs}
	if h.beat != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, h.beat)
		cmd.Env = append(cmd.Env, beatFD+"=4")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() != 0 && fusefs.MayMount() { // in a namespace, where a program that is started has no rights by itself
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
	if err := cmd.Start(); err != nil {
		ours.close()
		return nil, err
	}
	c := &child{control: ours, process: cmd.Process, task: to}
	begin := h.systemd
	begin.Task, begin.Point, begin.Served, begin.Parent, begin.Upgrade = to, h.point, h.life != nil, h.ready != nil, h.upgrade.last
	m := message{Kind: doBegin, Begin: &begin}
	if to != toMount {
		m.session = h.session
	}
	c.send(m) // one that does not listen has ended, or will be
	heard := make(chan struct{})
	go func() {
		h.hear(c)
		close(heard)
	}()
	go func() {
		state, _ := c.process.Wait()
		select {
		case <-heard: // its last words, too
		case <-time.After(packetWait):
		}
		h.events <- event{of: c, ended: state}
	}()
	return c, nil
}

func (h *holder) hear(c *child) {
	for {
		m, err := c.receive()
		h.events <- event{of: c, said: m, err: err}
		if err != nil {
			return
		}
	}
}
