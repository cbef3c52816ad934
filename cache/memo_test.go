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

// TestAnewAsksForWhatIsRemembered fails when who wants to know what is so now is given
// what is remembered, or what was asked for before; when each step of one such question
// asks anew; or when what was found is not what the next one is given.
func TestAnewAsksForWhatIsRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := NewMemo[string](100, nil, func(int) time.Duration { return time.Hour })
		loads := 0
		get := func(ctx context.Context, v int) int {
			t.Helper()
			got, err := m.Get(ctx, "k", func(context.Context) (int, error) {
				loads++
				return v, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		get(t.Context(), 1)
		time.Sleep(time.Nanosecond)
		anew := Anew(t.Context())
		if got := get(NotAnew(anew), 2); got != 1 || loads != 1 {
			t.Errorf("%d after %d loads: what is no answer is asked for anew", got, loads)
		}
		if got := get(anew, 3); got != 3 {
			t.Error("what was remembered is given:", got)
		}
		if get(anew, 4) != 3 || get(t.Context(), 5) != 3 || loads != 2 {
			t.Errorf("%d loads: what was found is not remembered", loads)
		}
		time.Sleep(time.Nanosecond)
		m.PutAs(t.Context(), "k", 6)
		if got := get(Anew(t.Context()), 7); got != 7 {
			t.Error("what came with another answer, whose age nobody knows, is given:", got)
		}

		answer := make(chan struct{})
		var wg sync.WaitGroup
		m.Drop("k")
		wg.Go(func() {
			m.Get(t.Context(), "k", func(context.Context) (int, error) {
				<-answer
				return 8, nil
			})
		})
		synctest.Wait()
		time.Sleep(time.Nanosecond)
		if got := get(Anew(t.Context()), 9); got != 9 {
			t.Error("an answer that was on its way is given:", got)
		}
		close(answer)
		wg.Wait()
		if got := get(t.Context(), 10); got != 9 {
			t.Error("an older answer is remembered over a newer one:", got)
		}
	})
}

// TestOlderLoadTellsNothingAfterADrop fails when what came with an answer that was asked
// for before something was dropped is remembered after it.
func TestOlderLoadTellsNothingAfterADrop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := NewMemo[string](100, nil, func(int) time.Duration { return time.Hour })
		answer := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			m.Get(t.Context(), "", func(ctx context.Context) (int, error) {
				<-answer
				m.PutAs(ctx, "below", 1)
				return 1, nil
			})
		})
		synctest.Wait()
		time.Sleep(time.Nanosecond)
		m.DropOlder(Anew(t.Context()), func(key string) bool { return key == "below" })
		close(answer)
		wg.Wait()
		if v, ok := m.Peek("below"); ok {
			t.Errorf("%d is remembered", v)
		}
		m.Get(t.Context(), "other", func(ctx context.Context) (int, error) {
			m.PutAs(ctx, "below", 2)
			return 2, nil
		})
		if v, _ := m.Peek("below"); v != 2 {
			t.Errorf("%d is remembered of a later load", v)
		}
	})
}

// TestDropOlderForgetsTheKeysThatItIsGiven fails when a directory's listings outlive the
// question for what is there now, or others, or those asked for since, are forgotten with
// them.
func TestDropOlderForgetsTheKeysThatItIsGiven(t *testing.T) {
	t.Parallel()
	m := NewMemo[string](100, nil, func(int) time.Duration { return time.Hour })
	for i, key := range []string{"a", "a/b", "ab"} {
		m.PutAs(t.Context(), key, i)
	}
	ctx := Anew(t.Context())
	m.Get(ctx, "a/c", func(context.Context) (int, error) { return 3, nil })
	m.DropOlder(ctx, func(key string) bool { return key != "ab" })
	for key, want := range map[string]bool{"a": false, "a/b": false, "a/c": true, "ab": true} {
		if _, ok := m.Peek(key); ok != want {
			t.Errorf("%s is remembered: %v", key, ok)
		}
	}
}

// TestAsItWasAsksNobody fails when what is remembered is not given because it is old, or
// when somebody is asked for what is not.
func TestAsItWasAsksNobody(t *testing.T) {
	t.Parallel()
	m := NewMemo[string](100, nil, func(int) time.Duration { return 0 })
	m.PutAs(t.Context(), "old", 7)
	ctx := AsItWas(Anew(t.Context()))
	ask := func(context.Context) (int, error) {
		t.Error("somebody is asked")
		return 0, nil
	}
	if v, err := m.Get(ctx, "old", ask); v != 7 || err != nil {
		t.Error(v, err)
	}
	if v, err := m.Get(ctx, "none", ask); err == nil {
		t.Error(v)
	}
}
