package cache

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

// TestWaitsAreLoggedAsTheyAre fails when the log of a read that waits looks at what a
// stream changes meanwhile: under the race detector, or by a nil pointer.
func TestWaitsAreLoggedAsTheyAre(t *testing.T) {
	t.Parallel()
	c := New(Options{TempDir: t.TempDir()}) // a log that is written has a lock, which would hide it
	var wg sync.WaitGroup
	for i := range 300 {
		o := &origin{data: noise(3 * BlockSize), whole: true}
		for k := range int64(4) {
			wg.Go(func() {
				f := c.Open(Key{fmt.Sprint(i), 3 * BlockSize, ""}, o, true)
				defer f.Close()
				if _, err := f.ReadAt(WithRequest(context.Background(), 1), make([]byte, 100), k%3*BlockSize); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	c.Wait()
}
