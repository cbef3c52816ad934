package rest

import (
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// TestDecodeIsTheStandardLibrarys fails when an answer that is read item by item is
// another than encoding/json reads at once.
func TestDecodeIsTheStandardLibrarys(t *testing.T) {
	t.Parallel()
	type doc struct {
		Files []struct {
			Path string `json:"path"`
			Size Int    `json:"file_size"`
		} `json:"files"`
		Raw  []json.RawMessage `json:"raw"`
		One  json.RawMessage   `json:"one"`
		Next string            `json:"next_page_token"`
		Yes  bool
	}
	for _, s := range []string{
		`{}`, ` {"files":[]} `, `{"files":null,"next_page_token":"t","yes":true}`, `{"FILES":[{"path":"a","file_size":"3","x":[1,{"y":[]}]},{}],"other":{"a":[{}, "]"]},"Next_page_token":"n"}`,
		`{"raw":[1,"x",{"a":[2]}],"one":{"b":[1]},"z":null,"y":[[],[[]]],"next_page_token":null}`,
		`[]`, `3`, ``, `{"files":{}}`, `{"files":[}`, `{"files":[1]}`, `{"files":[{}`, `{"a":`, `{"next_page_token":4}`, `<html>`,
	} {
		var got, want doc
		err := Decode(strings.NewReader(s), &got)
		werr := json.NewDecoder(strings.NewReader(s)).Decode(&want)
		if (err == nil) != (werr == nil) || (err == nil && len(got.Files) != len(want.Files)) {
			t.Errorf("%s: %v, and not %v", s, err, werr)
			continue
		}
		if want.Files != nil && len(want.Files) == 0 {
			got.Files = want.Files
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, and not %+v", s, got, want)
		}
	}
}

// endless is JSON that goes on with a piece until n bytes have come.
type endless struct {
	head, piece string
	n           int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.n <= 0 {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) {
		if e.head == "" {
			e.head = e.piece
		}
		k := copy(p[n:], e.head)
		e.head = e.head[k:]
		n += k
	}
	e.n -= n
	return n, nil
}

// TestLongAnswerTakesLittleMemory fails when an answer of 1 GiB (one string, a field
// that nobody wants, a list without end, in small items or in none) is taken, or takes
// more memory than its bounds.
func TestLongAnswerTakesLittleMemory(t *testing.T) {
	for name, e := range map[string]*endless{
		"string":      {head: `{"next_page_token":"`, piece: "xxxxxxxx"},
		"item":        {head: `{"runs":[{"info":{"run_id":"`, piece: "xxxxxxxx"},
		"other":       {head: `{"zzz":"`, piece: "xxxxxxxx"},
		"empty items": {head: `{"runs":[{}`, piece: ",{}"},
	} {
		e.n = 1 << 30
		var out struct {
			Runs []struct{} `json:"runs"`
			Next string     `json:"next_page_token"`
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := Decode(http.MaxBytesReader(nil, io.NopCloser(e), maxAnswer), &out)
		runtime.ReadMemStats(&after)
		if err == nil || e.n <= 0 {
			t.Errorf("%s: %v, with %d bytes left", name, err, e.n)
		}
		if grew := int64(after.HeapSys) - int64(before.HeapSys); grew > 96<<20 {
			t.Errorf("%s: the heap grew by %d MiB", name, grew>>20)
		}
	}
}

// FuzzIntTakesAnyBytes fails when an unexpected number in a server's answer ends the
// daemon.
func FuzzIntTakesAnyBytes(f *testing.F) {
	f.Add([]byte(`"12"`))
	f.Add([]byte(`-3`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v struct{ N Int }
		_ = json.Unmarshal([]byte(`{"N":`+string(b)+`}`), &v) // no panic
	})
}
