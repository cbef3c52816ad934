package meta

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestLongRecordsAreAskedForInFewer fails when records of 2 MiB, of which a hundred are
// too long for an answer, can't be read, or come otherwise than they were sent.
func TestLongRecordsAreAskedForInFewer(t *testing.T) {
	t.Parallel()
	const n = 12
	long := strings.Repeat(`\"[{,`, 300<<10)
	var sizes []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/3.0/mlflow/datasets/d-1/records" {
			http.NotFound(w, r)
			return
		}
		first, _ := strconv.Atoi(r.FormValue("page_token"))
		most, _ := strconv.Atoi(r.FormValue("max_results"))
		sizes = append(sizes, r.FormValue("max_results"))
		var list []string
		for i := first; i < min(first+most, n); i++ {
			list = append(list, `{"i": `+strconv.Itoa(i)+", \n\"x\": [NaN, \"a\\\\\", \""+long+`"]}`)
		}
		out := map[string]string{"records": "[" + strings.Join(list, ", ") + "]"}
		if first+most < n {
			out["next_page_token"] = strconv.Itoa(first + most)
		}
		json.NewEncoder(w).Encode(out)
	}))
	defer srv.Close()
	c, err := rest.NewClient(srv.URL, env(nil), quiet)
	if err != nil {
		t.Fatal(err)
	}
	s := NewREST(c)
	var got []string
	for token, again := "", true; again; again = token != "" {
		p, err := s.DatasetRecords(t.Context(), "d-1", token)
		if err != nil {
			t.Fatal(err, sizes)
		}
		got, token = append(got, p.Items...), p.Next
	}
	if len(got) != n || got[11] != `{"i": 11,  "x": [NaN, "a\\", "`+long+`"]}` {
		t.Errorf("%d records, after pages of %v: %.100s", len(got), sizes, got[len(got)-1])
	}
	if _, err := s.DatasetRecords(t.Context(), "d-2", ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a dataset that is not there: %v", err)
	}
	for list, want := range map[string]int{"[]": 0, " [ ] ": 0, `[{}]`: 1, `[1, "],[", [2, {"a": [3]}]]`: 3, "": -1, "{": -1, `["a]`: -1} {
		if e, err := elements(list); len(e) != max(want, 0) || (err != nil) != (want < 0) {
			t.Errorf("%s: %q, %v", list, e, err)
		}
	}
}
