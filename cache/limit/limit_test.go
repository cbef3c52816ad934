package limit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails the package when a test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func (x *Permit) isReady() bool {
	select {
	case <-x.ready:
		return true
	default:
		return false
	}
}

// TestSilentOriginTakesNothing fails when requests to an origin that does not answer
// keep those to another one waiting.
func TestSilentOriginTakesNothing(t *testing.T) {
	t.Parallel()
	r := New(4, 32)
	for range 500 {
		r.Ask("silent", Waited)
	}
	if n := r.origins["silent"].running; n != 4 {
		t.Errorf("%d run", n)
	}
	for range 4 {
		if !r.Ask("healthy", Ahead).isReady() {
			t.Error("a healthy origin waits for a silent one")
		}
	}
}

// TestWhoIsWaitedForGoesFirst fails when a request ahead goes before one that a
// program waits for, or one that came later before an earlier one.
func TestWhoIsWaitedForGoesFirst(t *testing.T) {
	t.Parallel()
	r := New(1, 1)
	first := r.Ask("a", Waited)
	ahead, promoted, waited, last := r.Ask("a", Ahead), r.Ask("a", Ahead), r.Ask("a", Waited), r.Ask("b", Waited)
	promoted.Promote()
	promoted.Promote()
	if !first.isReady() || waited.isReady() {
		t.Fatal("the first one waits, or the second does not")
	}
	first.Release()
	first.Release()
	for _, want := range []*Permit{waited, promoted} {
		if last.isReady() { // the order among origins is any
			last.Release()
		}
		if !want.isReady() {
			t.Fatal("the order is wrong")
		}
		if ahead.isReady() {
			t.Fatal("nobody waits for it, and it goes first")
		}
		want.Release()
	}
	last.Release()
	if !ahead.isReady() {
		t.Error("it waits for ever")
	}
	ahead.Release()
	if len(r.origins) > 0 || r.running != 0 {
		t.Errorf("%d origins and %d requests are left", len(r.origins), r.running)
	}
}

// TestAllIsABoundToo fails when many origins have more requests running than there
// may be, or when a place that became free is given to nobody.
func TestAllIsABoundToo(t *testing.T) {
	t.Parallel()
	r := New(4, 6)
	var all []*Permit
	for i := range 3 {
		for range 4 {
			all = append(all, r.Ask(fmt.Sprint(i), Ahead))
		}
	}
	for len(all) > 0 {
		running := 0
		for _, x := range all {
			if x.isReady() {
				running++
			}
		}
		if want := min(6, len(all)); running != want {
			t.Fatalf("%d of %d run, want %d", running, len(all), want)
		}
		for i, x := range all {
			if x.isReady() {
				x.Release()
				all = append(all[:i], all[i+1:]...)
				break
			}
		}
	}
}

// TestGivenUpOriginRefusesWhoWaits fails when those that wait for an origin that was
// silent wait for it one after the other, or when it is refused for ever.
func TestGivenUpOriginRefusesWhoWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := New(1, 8)
		runs := r.Ask("a", Waited)
		silent := errors.New("silent")
		begin := time.Now()
		done := make(chan error)
		for range 100 {
			go func() { done <- r.Ask("a", Waited).Wait(t.Context()) }()
		}
		synctest.Wait()
		time.Sleep(time.Second)
		runs.Release()
		synctest.Wait() // one of them is let in
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.GiveUp("a", silent)
		for range 99 {
			if err := <-done; err != silent {
				t.Error(err)
			}
		}
		if time.Since(begin) > time.Second {
			t.Errorf("it took %v", time.Since(begin))
		}
	})
}

// TestInterruptedWaiterLeavesTheQueue fails when who does not wait any more takes a
// place all the same.
func TestInterruptedWaiterLeavesTheQueue(t *testing.T) {
	t.Parallel()
	r := New(1, 1)
	runs, waits := r.Ask("a", Waited), r.Ask("a", Waited)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := waits.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	runs.Release()
	if r.running != 0 || len(r.origins) > 0 {
		t.Errorf("%d run, of %d origins", r.running, len(r.origins))
	}
}
