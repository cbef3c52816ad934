package test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// everyForm is a URI of each form.
func everyForm(s *seeded) (uris []string) {
	for _, u := range []string{"echo/latest", "echo/LaTeSt", "echo@latest", "echo@LATEST", "echo@champion/1", "echo@3/MLmodel", "echo/production/MLmodel", "echo/1/", "echo/none", "echo@none", "none/1", "a:b/1", "echo", "echo@", "@champion", "/echo//1", "echo/1//MLmodel", "echo/1/MLmodel/", " sp ace.d'or/1", " sp ace.d'or/1/artifacts/data", " sp ace.d'or@best/artifacts/data/", "with@sign and space@best/MLmodel", "with@sign and space/1/MLmodel", ""} {
		uris = append(uris, "models:/"+u)
	}
	second, wide := "runs:/"+s.Second+"/", "runs:/"+s.Wide+"/"
	text := "/" + s.experiment() + "/" + s.Wide + "/artifacts/doc/text.txt"
	file := s.artifacts() + text
	uris = append(uris, file, "file:"+file, "file://"+file, "file://localhost"+file, "FILE://"+file, "file://elsewhere"+file, file+"/", filepath.Dir(file)+"/", "file:"+filepath.Dir(file)+"/",
		"mlflow-artifacts:"+text, "mlflow-artifacts://"+text, "mlflow-artifacts:/"+text, "MLFLOW-ARTIFACTS:"+text, "mlflow-artifacts:"+text[1:],
		"RUNS:/"+s.Wide+"/doc", "Models:/echo/1", "Models:/echo/1/MLmodel", "unknown://host/x", "unknown:/x", "no-such-file", "./no-such-file", "s3://", "s3:/x", "gs:", "runs:"+s.Wide+"/doc", "models:echo/1", "models:///echo/1", "runs:/"+strings.ToUpper(s.Wide)+"/doc", "runs:/"+s.Wide[:31]+"/doc",
		"runs:/"+s.Deleted+"/gone.txt", "runs:/"+s.Running+"/log.txt")
	return append(uris, second+"model2", second+"model2/", second+"model2/MLmodel", second+"model2/artifacts", second+"model2/artifacts/data/", second+"model2/artifacts/data/deeper/b.txt", second+"model", wide+"model/MLmodel", wide+"model", wide+"model/",
		wide+"doc/", wide+"doc", wide+"doc//text.txt", "runs:/"+s.Wide+"//doc/text.txt", wide+"deep/0/1/2", "runs:///"+s.Wide+"/doc", "runs:/", "runs:/../x/y",
		wide+"doc/text.txt#x", wide+"doc%2Ftext.txt", "runs:/"+s.Empty, wide+"none/", wide+"doc/none", "runs://host/"+s.Wide+"/doc", wide+"doc/../doc")
}

// someURIs are n URIs by chance.
func someURIs(rng *rand.Rand, s *seeded, n int) (uris []string) {
	one := func(of ...string) string { return of[rng.IntN(len(of))] }
	model := func() string {
		bases := []string{"echo/1", "echo/2", "echo/77", "echo/LATEST", "echo/Staging", "echo/none", "echo@champion", "echo@Latest", "echo@none", "none/1", " sp ace.d'or@best", "with@sign and space@best"}
		return "models:/" + one(append(bases, s.Models...)...) + one("", "", "/MLmodel", "/none", "/python_model.pkl", "/artifacts", "/artifacts/data/deeper")
	}
	run := func() string {
		if rng.IntN(2) == 0 {
			return "runs:/" + s.Second + "/" + one("model2", "model2/MLmodel", "model2/artifacts", "model2/artifacts/data", "model2/artifacts/data/a.txt", "model/MLmodel", "model", "none", "model/extra")
		}
		return "runs:/" + s.Wide + "/" + one("doc", "doc/text.txt", "doc/dict.json", "deep", "deep/0/1", "model", "model/MLmodel", "names/sp ace.txt", "names/é.txt", "names/plus+.txt", "names/.dot", "empty", "none", "doc/text.txt/x")
	}
	place := func() string {
		root := one("mlflow-artifacts:/", "file://"+s.artifacts()+"/", s.artifacts()+"/")
		return root + s.experiment() + "/" + s.Wide + "/artifacts/" + one("doc", "doc/text.txt", "deep/0", "none", "names/sp ace.txt", "names/é.txt")
	}
	for range n {
		u := []func() string{model, run, place}[rng.IntN(3)]()
		switch rng.IntN(8) {
		case 0, 1:
			u += "/"
		case 2:
			if i := strings.LastIndexByte(u, '/'); i > 8 && strings.HasPrefix(u, "runs:") {
				u = u[:i] + "/" + u[i:]
			}
		case 3:
			u += one("#x", "?x=1")
		}
		uris = append(uris, u)
	}
	return uris
}

// artifacts is the directory of the experiments' artifacts.
func (s *seeded) artifacts() string {
	if s.server != nil {
		return s.server.artifacts()
	}
	return filepath.Join(s.dir, "mlruns")
}

// experiment is the id of the experiment of the run wide.
func (s *seeded) experiment() string {
	dirs, _ := filepath.Glob(filepath.Join(s.artifacts(), "*", s.Wide))
	if len(dirs) == 0 {
		return "no-experiment"
	}
	return filepath.Base(filepath.Dir(dirs[0]))
}

// holdMount says how the mount differs from the client's download, where it has a
// path of that URI.
func holdMount(m *mount, uri string, want uriAnswer) string {
	at := ""
	if rest, ok := strings.CutPrefix(uri, "runs:/"); ok {
		at = m.path("runs", strings.Trim(rest, "/"))
	} else if rest, ok := strings.CutPrefix(uri, "models:/"); ok && !strings.HasPrefix(rest, "/") {
		at = m.path("models", strings.TrimRight(rest, "/"))
	} else if scheme, rest, ok := strings.Cut(uri, "://"); ok && slices.Contains([]string{"s3", "gs", "wasbs"}, scheme) {
		host, key, _ := strings.Cut(rest, "/")
		if container, account, ok := strings.Cut(host, "@"); ok {
			name, _, _ := strings.Cut(account, ".")
			host = name + "/" + container
		}
		at = m.path("uri", scheme, host, key)
	}
	if at == "" || want.Download.Error != "" {
		return ""
	}
	for name, digest := range want.Download.Tree {
		rel, err := filepath.Rel(want.Download.Returned, name)
		if digest == "" || err != nil || strings.HasPrefix(rel, "..") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(at, rel))
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(uri, "/") {
			continue // what is in a logged model's directory stands below its name
		}
		if got := sha256.Sum256(b); err != nil || hex.EncodeToString(got[:]) != digest {
			return fmt.Sprintf("the mount's %s: %v, %d bytes that are not the client's", filepath.Join(at, rel), err, len(b))
		}
	}
	return ""
}
