package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// process is what commands have of the process that they run in.
type process struct {
	environ        []string // as os.Environ gives it
	stdout, stderr io.Writer
	parent         io.WriteCloser  // waits for the mount; nil: nobody does
	abort          <-chan struct{} // closed by the second signal: what still waits for others ends
}

// thisProcess is the one that main is in. Nothing else looks at its environment.
func thisProcess() *process {
	p := &process{stdout: os.Stdout, stderr: os.Stderr}
	if os.Getenv(readyFD) != "" {
		os.Unsetenv(readyFD) // it is not passed on
		syscall.CloseOnExec(readyFile)
		p.parent = os.NewFile(readyFile, "ready")
	}
	p.environ = os.Environ()
	return p
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

// interruptible is the context of commands; see [process.endBy].
func (p *process) interruptible() context.Context {
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	return p.endBy(signals, os.Exit)
}

// endBy gives a context that the first signal cancels. The second one has a mount wait no
// longer for programs that use it; what has not ended a moment later, or with the third
// one, ends with the process.
func (p *process) endBy(signals <-chan os.Signal, exit func(code int)) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	abort := make(chan struct{})
	p.abort = abort
	go func() {
		<-signals
		cancel()
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
