package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mattn/go-isatty"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress shows how far a transfer is: a bar on a terminal, else a line every
// ten seconds, or nothing.
type progress struct {
	out             io.Writer
	quiet, terminal bool
	every           time.Duration // between two lines
	done, total     atomic.Int64  // bytes
	began           time.Time

	bars  *mpb.Progress
	bar   *mpb.Bar
	ended chan struct{}
	wait  sync.WaitGroup
}

func newProgress(out io.Writer, quiet bool) *progress {
	return &progress{out: out, quiet: quiet, terminal: isTerminal(out), every: 10 * time.Second, ended: make(chan struct{})}
}

// isTerminal tells whether people see what is written to w as it comes.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// more says that n more bytes will come.
func (p *progress) more(n int64) {
	total := p.total.Add(n)
	if p.bar != nil {
		p.bar.SetTotal(total, false)
	}
}

// add says that n bytes have come, or must come again where n is negative.
func (p *progress) add(n int64) {
	done := p.done.Add(n)
	if p.bar != nil {
		p.bar.SetCurrent(done)
	}
}

func (p *progress) start() {
	p.began = time.Now()
	switch {
	case p.quiet:
	case p.terminal:
		p.bars = mpb.New(mpb.WithOutput(p.out), mpb.WithWidth(40))
		p.bar = p.bars.New(0, mpb.BarStyle(),
			mpb.PrependDecorators(decor.CountersKibiByte("% .1f / % .1f")),
			mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1024(0), "% .1f"), decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 8})))
	default:
		p.wait.Go(func() {
			tick := time.NewTicker(p.every)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					p.line()
				case <-p.ended:
					return
				}
			}
		})
	}
}

// line is one line of progress: bytes, rate, time left.
func (p *progress) line() {
	done, total := p.done.Load(), p.total.Load()
	rate := float64(done) / time.Since(p.began).Seconds()
	left := "?"
	if rate > 0 {
		left = (time.Duration(float64(total-done)/rate) * time.Second).String()
	}
	fmt.Fprintf(p.out, "mlflowfs: %s of %s, %s/s, %s left\n", humanize.IBytes(uint64(max(done, 0))), humanize.IBytes(uint64(total)), humanize.IBytes(uint64(max(rate, 0))), left)
}

func (p *progress) stop(err error) {
	close(p.ended)
	p.wait.Wait()
	if p.bar == nil {
		return
	}
	if err != nil {
		p.bar.Abort(false)
	} else {
		p.bar.SetTotal(p.total.Load(), true)
	}
	p.bars.Wait()
}
