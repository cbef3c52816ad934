// Link is the distance between a benchmark and its origin: a TCP proxy that
// delays, caps and counts; and the raw download that everything is held
// against.
//
//	link proxy --listen 127.0.0.1:9000 --to 10.0.0.2:9000 --delay 10ms --rate 200000000 --count 127.0.0.1:9001
//	link get --parallel 8 --size 1073741824 URL
//
// proxy delays each way by --delay and lets at most --rate bytes a second come
// from the origin, over all connections; 0 is no cap. get fetches a URL's
// bytes in parallel ranges, or with --parallel 1 in one GET, keeps none, and
// prints the seconds until the first byte and until the last.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
)

func main() {
	var err error
	switch len(os.Args) {
	case 0, 1:
		err = fmt.Errorf("usage: link proxy|get …")
	default:
		switch os.Args[1] {
		case "proxy":
			err = proxy(os.Args[2:])
		case "get":
			err = get(os.Args[2:])
		default:
			err = fmt.Errorf("link %s: there is proxy and get", os.Args[1])
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "link:", err)
		os.Exit(1)
	}
}

// limit is so many bytes a second, shared by all connections.
type limit struct {
	rate   float64
	passed atomic.Int64 // bytes

	mu   sync.Mutex // guards free
	free time.Time  // when the link has sent all that it was given
}

// wait returns when n more bytes have passed the link.
func (l *limit) wait(n int) {
	l.passed.Add(int64(n))
	if l.rate <= 0 {
		return
	}
	l.mu.Lock()
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	until := l.free
	l.mu.Unlock()
	time.Sleep(time.Until(until))
}

func proxy(args []string) error {
	fl := pflag.NewFlagSet("proxy", pflag.ContinueOnError)
	listen := fl.String("listen", "127.0.0.1:0", "")
	to := fl.String("to", "", "")
	delay := fl.Duration("delay", 0, "")
	rate := fl.Float64("rate", 0, "")
	count := fl.String("count", "", "")
	if err := fl.Parse(args); err != nil {
		return err
	}
	down := &limit{rate: *rate}
	if *count != "" {
		go http.ListenAndServe(*count, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, down.passed.Load()) }))
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			time.Sleep(2 * *delay) // the handshake
			o, err := net.Dial("tcp", *to)
			if err != nil {
				c.Close()
				return
			}
			go far(o, c, *delay, &limit{})
			go far(c, o, *delay, down)
		}()
	}
}

// inFlight bounds what one direction of a connection may hold, in pieces: as
// much as the widest of windows.
const inFlight = 256

// far copies src to dst, each byte later by delay.
func far(dst, src net.Conn, delay time.Duration, l *limit) {
	type piece struct {
		b   []byte
		due time.Time
	}
	pieces := make(chan piece, inFlight)
	free := make(chan []byte, inFlight) // buffers to use again
	go func() {
		defer close(pieces)
		for {
			var b []byte
			select {
			case b = <-free:
			default:
				b = make([]byte, 64<<10)
			}
			n, err := src.Read(b[:cap(b)])
			if n > 0 {
				l.wait(n)
				pieces <- piece{b[:n], time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	var failed bool
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if !failed {
			if _, err := dst.Write(p.b); err != nil {
				failed = true
				src.Close()
			}
		}
		select {
		case free <- p.b:
		default:
		}
	}
	if c, ok := dst.(*net.TCPConn); ok {
		c.CloseWrite()
	}
	src.Close()
}

func get(args []string) error {
	fl := pflag.NewFlagSet("get", pflag.ContinueOnError)
	parallel := fl.Int("parallel", 1, "")
	size := fl.Int64("size", 0, "")
	piece := fl.Int64("piece", 8<<20, "")
	if err := fl.Parse(args); err != nil {
		return err
	}
	if *parallel == 1 {
		*piece = *size
	}
	url := fl.Arg(0)
	begin := time.Now()
	var first atomic.Int64
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, *parallel)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *parallel, DisableCompression: true, ReadBufferSize: 64 << 10}}
	for range *parallel {
		wg.Go(func() {
			buf := make([]byte, 1<<20)
			for {
				off := next.Add(*piece) - *piece
				if off >= *size {
					return
				}
				req, err := http.NewRequest("GET", url, nil)
				if err != nil {
					errs <- err
					return
				}
				end := min(off+*piece, *size) - 1
				req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, end))
				resp, err := client.Do(req)
				if err != nil {
					errs <- err
					return
				}
				if resp.StatusCode != http.StatusPartialContent {
					errs <- fmt.Errorf("the answer is %s", resp.Status)
					return
				}
				var got int64
				for {
					n, err := resp.Body.Read(buf)
					if n > 0 && got == 0 {
						first.CompareAndSwap(0, int64(time.Since(begin)))
					}
					if got += int64(n); err == io.EOF {
						break
					} else if err != nil {
						errs <- err
						return
					}
				}
				resp.Body.Close()
				if got != end-off+1 {
					errs <- fmt.Errorf("%d bytes came of %d", got, end-off+1)
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	fmt.Printf("%.6f %.6f\n", time.Duration(first.Load()).Seconds(), time.Since(begin).Seconds())
	return nil
}
