package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestValidatorThatComesLateCutsNothing fails when a download holds zeros, or
// another wrong byte, because the origin tells a validator with a later answer
// than the first, or with some answers only.
func TestValidatorThatComesLateCutsNothing(t *testing.T) {
	t.Parallel()
	for name, tells := range map[string]func(answer int64) bool{
		"with the second answer": func(n int64) bool { return n > 1 },
		"with the third answer":  func(n int64) bool { return n > 2 },
		"with the last answer":   func(n int64) bool { return n > 3 },
		"with the first alone":   func(n int64) bool { return n == 1 },
		"with every other one":   func(n int64) bool { return n%2 == 0 },
	} {
		for _, parallel := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, %d at once", name, parallel), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					data := noise(2*large + 100)
					var asked atomic.Int64
					d, dir, _ := downloader(t)
					d.Parallel = parallel
					err := d.Download(t.Context(), Key{"x", int64(len(data)), ""}, at{sourceFunc(func(off, n int64) (*Body, error) {
						b := &Body{ReadCloser: io.NopCloser(bytes.NewReader(data[off : off+n])), Total: int64(len(data))}
						if tells(asked.Add(1)) {
							b.Validator = etag()
						}
						return b, nil
					}), "origin"}, "f")
					if err != nil {
						t.Fatal(err)
					}
					if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, data) {
						t.Errorf("the file is wrong: %d bytes, %d of them zero, %v", len(got), bytes.Count(got, []byte{0}), err)
					}
				})
			})
		}
	}
}

// TestBrokenDownloadTakesUpALateValidator fails when a download that broke off
// before the origin told a validator, and goes on when it does, ends in a wrong
// file.
func TestBrokenDownloadTakesUpALateValidator(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const size = 2*large + 100
		old, data := noise(size), noise(size + 1)[1:]
		d, dir, _ := downloader(t)
		d.Parallel = 1
		key := Key{"x", size, ""}
		gone := errors.New("the server is gone")
		download := func(data []byte, validator string, answers int) error {
			return d.Download(t.Context(), key, at{sourceFunc(func(off, n int64) (*Body, error) {
				if answers--; answers < 0 {
					return nil, gone
				}
				return &Body{ReadCloser: io.NopCloser(bytes.NewReader(data[off : off+n])), Total: size, Validator: validator}, nil
			}), "origin"}, "f")
		}
		if err := download(old, "", 2); !errors.Is(err, gone) {
			t.Fatal(err)
		}
		if err := download(data, `"2"`, 1); !errors.Is(err, gone) { // replaced, and broken off again
			t.Fatal(err)
		}
		if err := download(data, `"2"`, 10); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, data) {
			t.Errorf("the file is wrong: %d bytes, %v", len(got), err)
		}
	})
}

// asDownloader is the variable that makes this program one that downloads, beside
// others, into the directory that it names.
const asDownloader = "MLFLOWFS_TEST_DOWNLOADER"

// TestDownloadsAtOnceEachGiveAWholeFile fails when a download says that it is done
// and the file is not what the origin has, or is of two, because others, in this
// process and in another one, download to the same name.
func TestDownloadsAtOnceEachGiveAWholeFile(t *testing.T) {
	t.Parallel()
	const rounds = 300 // downloads that succeed, of each process
	if dir := os.Getenv(asDownloader); dir != "" {
		downloadTogether(t, dir, rounds)
		return
	}
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			c := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
			c.Env = append(os.Environ(), asDownloader+"="+dir)
			if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
				t.Errorf("%v\n%.2000s", err, out)
			}
		})
	}
	wg.Wait()
}

// downloadTogether downloads one of two contents to one name, from three
// goroutines, until it has succeeded often enough. What it finds there each time
// is one of the two.
func downloadTogether(t *testing.T, dir string, rounds int64) {
	const size = 300_000
	contents := [][]byte{noise(size), noise(size + 1)[1:]}
	var done, refused atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(time.Minute)
	for i := range 3 {
		d, _, _ := downloader(t)
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { root.Close() })
		d.Root = root
		wg.Go(func() {
			for n := i; done.Load() < rounds && !t.Failed(); n++ {
				if time.Now().After(end) {
					t.Errorf("%d downloads in a minute; %d were refused", done.Load(), refused.Load())
					return
				}
				err := d.Download(context.Background(), Key{fmt.Sprint(n % 2), size, ""}, at{&origin{data: contents[n%2]}, "origin"}, "f")
				if err != nil {
					refused.Add(1)
					time.Sleep(100 * time.Microsecond)
					continue
				}
				done.Add(1)
				got, err := os.ReadFile(filepath.Join(dir, "f"))
				if err != nil || !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
					t.Errorf("the file of a download that succeeded is wrong: %d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
}
