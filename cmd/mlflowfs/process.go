package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is what commands have of the process that they run in.
type process struct {
	environ        []string // as os.Environ gives it
	stdout, stderr io.Writer
	parent         io.WriteCloser  // waits for the mount; nil: nobody does
	held           *held           // by the process that has this one answer its mount; nil: none
	life           io.Reader       // of who ends the command; nil: signals do
	served         bool            // that is whom the command serves
	calm           func()          // has signals end nothing any more
	ignored        []os.Signal     // that whoever started this process has ignored
	abort          <-chan struct{} // closed by the second signal: what still waits for others ends
}

// thisProcess is the one that main is in. Nothing else looks at its environment.
func thisProcess() *process {
	p := &process{stdout: os.Stdout, stderr: os.Stderr}
	if f := lent(readyFD); f != nil {
		p.parent = f
	}
	if f := lent(lifeFD); f != nil {
		p.life, p.served = f, true
	}
	if f := lent(holderFD); f != nil {
		p.obey(f)
	}
	if f := lent(beatFD); f != nil {
		go beat(f)
		if os.Getenv("GOGC") == "off" {
			os.Unsetenv("GOGC")
			time.AfterFunc(100*time.Millisecond, func() {
				if before := debug.SetGCPercent(100); before >= 0 {
					debug.SetGCPercent(before) // as the cache has it
				}
			})
		}
	}
	p.environ = os.Environ()
	return p
}

// These variables name descriptors that a program passes to a mount that it starts.
const (
	readyFD = "MLFLOWFS_READY_FD" // where the mount tells that it answers, or why it does not: see [word]
	lifeFD  = "MLFLOWFS_LIFE_FD"  // of whom the command serves: it ends by that, and not by signals (see [process.serve])
)

// obey has the process be the daemon of a holder's mount.
func (p *process) obey(holder *os.File) {
	h, err := heldBy(holder)
	if err != nil {
		fmt.Fprintf(p.stderr, "mlflowfs: %v\n", err)
		os.Exit(exitFailed)
	}
	p.held, p.life, p.served = h, h.life, h.Served
	if h.Parent {
		p.parent = h
	}
}

// lent is the file that a variable names; nil: it names none. Neither is passed on.
func lent(variable string) *os.File {
	fd, err := strconv.Atoi(os.Getenv(variable))
	os.Unsetenv(variable)
	if err != nil || fd < 3 {
		return nil
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), variable)
}

// beatFD is the variable that names a file descriptor to which the process writes a byte
// at once, and each second that it lives: who waits for it can tell work from a hang. Who
// is in a hurry sets GOGC=off, too, which is for the start alone.
const beatFD = "MLFLOWFS_BEAT_FD"

func beat(w io.WriteCloser) {
	for {
		if _, err := w.Write([]byte{'.'}); err != nil {
			w.Close()
			return
		}
		time.Sleep(time.Second)
	}
}

// getenv is a variable's value; empty: it is not set.
func (p *process) getenv(name string) string {
	for _, v := range p.environ {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// lastMoment is how long the process goes on after the second signal.
const lastMoment = time.Second

// interruptible is the context of commands; see [process.endBy] and [process.serve].
func (p *process) interruptible() context.Context {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} { // Go leaves alone no others
		if signal.Ignored(s) {
			p.ignored = append(p.ignored, s)
		}
	}
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	p.calm = func() { signal.Stop(signals) }
	if p.life != nil {
		p.calm()
		signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		if p.served {
			signal.Ignore(syscall.SIGQUIT)
		}
		go p.serve(signals)
	}
	return p.endBy(signals, p.exit)
}

// endBy gives a context that the first signal cancels. The second one has a mount wait no
// longer for programs that use it; what has not ended a moment later, or with the third
// one, ends with the process.
func (p *process) endBy(signals <-chan os.Signal, exit func(code int)) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	abort := make(chan struct{})
	p.abort = abort
	go func() {
		cancel(caught{<-signals})
		<-signals
		close(abort)
		select {
		case <-signals:
		case <-time.After(lastMoment):
		}
		exit(exitFailed)
	}()
	return ctx
}

// caught is the cause of the end of a context that a signal has ended.
type caught struct{ os.Signal }

func (c caught) Error() string { return c.String() }

// serve has a byte of whom the command serves be a first signal, and the end of file a
// second one. The end alone, which is also that of who is killed, is the first.
func (p *process) serve(signals chan<- os.Signal) {
	for {
		n, err := p.life.Read(make([]byte, 1))
		if n == 0 && err != io.EOF {
			return // nobody can be heard
		}
		signals <- syscall.SIGTERM
		if n == 0 {
			return
		}
	}
}
