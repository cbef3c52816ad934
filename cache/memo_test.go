package cache

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

func TestMemo(t *testing.T) {
	now := time.Unix(0, 0)
	m := NewMemo[string](100, func(v int) int64 { return int64(v) }, func(int) time.Duration { return time.Second })
	m.now = func() time.Time { return now }
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
		t.Error("a value is not remembered")
	}
	now = now.Add(2 * time.Second)
	if get("a", 2) != 2 {
		t.Error("a value is believed for too long")
	}
	m.Drop("a")
	if get("a", 3) != 3 {
		t.Error("a dropped value is remembered")
	}
	m.PutAs(t.Context(), "a", 4)
	if get("a", 5) != 4 {
		t.Error("a value that was put is not remembered")
	}
	get("big", 99)
	if m.total > 100 || get("a", 6) != 6 {
		t.Errorf("values of %d together are held", m.total)
	}
}

func TestMemoLoadsOnce(t *testing.T) {
	m := NewMemo[string](100, nil, func(int) time.Duration { return time.Minute })
	block := make(chan struct{})
	loads := 0
	load := func(ctx context.Context) (int, error) {
		<-block
		loads++
		return 7, ctx.Err()
	}
	gone, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := m.Get(gone, "k", load); !errors.Is(err, context.Canceled) {
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
	close(block)
	wg.Wait()
	if loads != 1 {
		t.Errorf("%d loads", loads)
	}
}

func TestMemoForgetsErrorsAndPanics(t *testing.T) {
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
