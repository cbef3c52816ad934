package cache

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestMemoRemembersForALifetime fails when a listing is asked for again while
// it is believed, is believed for too long or after it was dropped, or when
// values cost more memory together than they may.
func TestMemoRemembersForALifetime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := NewMemo[string](100, func(v int) int64 { return int64(v) }, func(int) time.Duration { return time.Second })
		loads := 0
		get := func(key string, v int) int {
			t.Helper()
			got, err := m.Get(context.Background(), key, func(context.Context) (int, error) {
				loads++
				return v, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		if get("a", 1) != 1 || get("a", 2) != 1 || loads != 1 {
			t.Errorf("a value is not remembered: %d loads", loads)
		}
		time.Sleep(2 * time.Second) // of the bubble's clock
		if get("a", 2) != 2 || loads != 2 {
			t.Errorf("a value is believed for too long: %d loads", loads)
		}
		m.Drop("a")
		if get("a", 3) != 3 || loads != 3 {
			t.Errorf("a dropped value is remembered: %d loads", loads)
		}
		m.PutAs(t.Context(), "a", 4)
		if get("a", 5) != 4 || loads != 3 {
			t.Errorf("a value that was put is not remembered: %d loads", loads)
		}
		get("big", 99)
		if m.values.Total() > 100 || get("a", 6) != 6 {
			t.Errorf("values of %d together are held", m.values.Total())
		}
	})
}

// TestMemoForgetsWhatIsDroppedWhileItLoads fails when a listing that was asked
// for before a change is remembered after it.
func TestMemoForgetsWhatIsDroppedWhileItLoads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := NewMemo[string](100, nil, func(int) time.Duration { return time.Minute })
		answer := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			m.Get(t.Context(), "k", func(context.Context) (int, error) {
				<-answer
				return 1, nil
			})
		})
		synctest.Wait()
		m.Drop("k")
		close(answer)
		wg.Wait()
		if v, err := m.Get(t.Context(), "k", func(context.Context) (int, error) { return 2, nil }); v != 2 || err != nil {
			t.Errorf("got %d and %v", v, err)
		}
	})
}

// TestMemoLoadsOnce fails when many who ask for the same thing at once send as
// many requests, or when one who gives up ends the request of the others.
func TestMemoLoadsOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := NewMemo[string](100, nil, func(int) time.Duration { return time.Minute })
		answer := make(chan struct{})
		loads := 0
		load := func(ctx context.Context) (int, error) {
			loads++
			<-answer
			return 7, ctx.Err()
		}
		gone, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := m.Get(gone, "k", load); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("an impatient caller got %v", err)
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if v, err := m.Get(context.Background(), "k", load); v != 7 || err != nil {
					t.Errorf("got %v, %v", v, err)
				}
			})
		}
		synctest.Wait() // all of them wait
		close(answer)
		wg.Wait()
		if loads != 1 {
			t.Errorf("%d loads, want 1", loads)
		}
	})
}

// TestMemoForgetsErrorsAndPanics fails when an error of a server is given again
// after the server has come back, or when a fault in a load ends the process.
func TestMemoForgetsErrorsAndPanics(t *testing.T) {
	t.Parallel()
	m := NewMemo[string](100, nil, func(int) time.Duration { return time.Minute })
	boo := errors.New("boo")
	if _, err := m.Get(context.Background(), "k", func(context.Context) (int, error) { return 0, boo }); !errors.Is(err, boo) {
		t.Fatal(err)
	}
	if _, err := m.Get(context.Background(), "k", func(context.Context) (int, error) { panic("no") }); err == nil {
		t.Fatal("a panic is no error")
	}
	if v, err := m.Get(context.Background(), "k", func(context.Context) (int, error) { return 1, nil }); v != 1 || err != nil {
		t.Fatal(v, err)
	}
}

// TestMemoReloadsDoubtedValues fails when an answer that may be out of date is
// shown for as long as a good one, or is asked for again at each look.
func TestMemoReloadsDoubtedValues(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := NewMemo[string](10, nil, func(int) time.Duration { return time.Hour })
		loads := 0
		get := func(doubt bool) int {
			v, _ := m.Get(t.Context(), "k", func(ctx context.Context) (int, error) {
				if doubt {
					MarkStale(ctx)
				}
				loads++
				return loads, nil
			})
			return v
		}
		for range 2 {
			if get(true) != 1 {
				t.Error("a doubted value is not believed at all")
			}
		}
		time.Sleep(StaleLifetime + time.Millisecond) // of the bubble's clock
		if get(false) != 2 {
			t.Error("a doubted value is believed for long")
		}
		time.Sleep(time.Minute)
		if get(false) != 2 {
			t.Error("a value that is not doubted is not believed")
		}
	})
}
