package resolve

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestURIMeansWhatMLflowMeans fails when a runs:/ or models:/ URI leads to another run,
// version or path than in MLflow, when one that MLflow refuses is taken, or when the
// address of a place is taken for such a URI.
func TestURIMeansWhatMLflowMeans(t *testing.T) {
	t.Parallel()
	id := "m-" + strings.Repeat("0a", 16)
	for s, want := range map[string]URI{
		"runs:/abc":                  {RunID: "abc"},
		"runs:/abc/":                 {RunID: "abc"},
		"runs:/abc/a b/c#d":          {RunID: "abc", Path: "a b/c#d"},
		"models:/echo/3":             {Name: "echo", Version: "3"},
		"models:/echo/3/x/y":         {Name: "echo", Version: "3", Path: "x/y"},
		"models:/echo/Latest":        {Name: "echo"},
		"models:/echo/production":    {Name: "echo", Stage: "production"},
		"models:/echo@champ":         {Name: "echo", Alias: "champ"},
		"models:/echo@3/MLmodel":     {Name: "echo", Alias: "3", Path: "MLmodel"},
		"models:/a@b@c":              {Name: "a@b", Alias: "c"},
		"models:/a@b/1":              {Name: "a", Alias: "b", Path: "1"},
		"models:/a@b/x//y/":          {Name: "a", Alias: "b", Path: "x/y"},
		"models:/echo@LATEST":        {Name: "echo", Alias: "LATEST"},
		"models:///echo/3":           {Name: "echo", Version: "3"},
		"RUNS:/abc/X":                {RunID: "abc", Path: "X"},
		"Models:/Echo/1":             {Name: "Echo", Version: "1"},
		"runs:///abc/x":              {RunID: "abc", Path: "x"},
		"runs:/abc/x//y":             {RunID: "abc", Path: "x/y"},
		"runs:/abc/sub/":             {RunID: "abc", Path: "sub", Inside: true},
		"models:/" + id:              {ModelID: id},
		"models:/" + id + "/x":       {ModelID: id, Path: "x"},
		"models:/m-notanid/1":        {Name: "m-notanid", Version: "1"},
		"models:/ .dotted name /2":   {Name: " .dotted name ", Version: "2"},
		"prompts:/ask/1":             {Name: "ask", Prompt: true, Version: "1"},
		"prompts:/ask/1/prompt.json": {Name: "ask", Prompt: true, Version: "1", Path: "prompt.json"},
		"prompts:/ask@prod":          {Name: "ask", Prompt: true, Alias: "prod"},
		"prompts:/ask@latest":        {Name: "ask", Prompt: true, Alias: "latest"},
		"prompts:/ask/latest":        {Name: "ask", Prompt: true},
		"prompts:/a@b@c/x":           {Name: "a@b", Prompt: true, Alias: "c", Path: "x"},
		"prompts:/" + id + "/1":      {Name: id, Prompt: true, Version: "1"},
	} {
		got, found, err := ParseURI(s)
		if d := cmp.Diff(want, got); d != "" || !found || err != nil {
			t.Errorf("%s: %v %v %s", s, found, err, d)
		}
	}
	for _, s := range []string{"runs:", "runs:/", "runs:/../x", "runs://host/abc", "models:/", "models:/echo", "models:/echo@", "models:/@a", "models:/a@/1", "models:/a@ /1", "models:/echo/3//x", "models:////echo/3", "models:/ /1", "models:/a@b//1", "prompts:/ask", "prompts:/ask/production", "prompts:/", "prompts:/@a", "prompts://host/a/1"} {
		if u, found, err := ParseURI(s); err == nil || !found {
			t.Errorf("%s was taken as %+v", s, u)
		}
	}
	for _, s := range []string{"s3://b/k", "mlflow-artifacts:/1", "/tmp/x", "", "file:///x"} {
		if _, found, err := ParseURI(s); found || err != nil {
			t.Errorf("%s is a place: %v", s, err)
		}
	}
}

// FuzzURIRoundTrips fails when some URI is printed as one that means something else.
func FuzzURIRoundTrips(f *testing.F) {
	for _, s := range []string{"runs:/a/b", "models:/a@b/c", "models:/a/1/x", "models:/a/latest", "models:/m-00000000000000000000000000000000/x", "models:/0@0//0", "prompts:/a@b/c", "prompts:/a/1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, found, err := ParseURI(s)
		if !found || err != nil {
			return
		}
		again, found, err := ParseURI(u.String())
		if again != u || !found || err != nil {
			t.Errorf("%q is %+v, printed as %q, read as %+v, %v", s, u, u, again, err)
		}
	})
}
