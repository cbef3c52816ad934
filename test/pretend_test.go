package test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path"
	"sync"
	"time"
)

// pretended is a directory of files that no server has, however many and large:
// an origin lists them, and sends their bytes, in the place of the server behind
// it. All have the same bytes.
type pretended struct {
	dir   string // its name, that of a directory of the server's
	files int    // 00000 and so on
	size  int64  // bytes of each
	whole bool   // they come as one stream, whatever range is asked for

	before func(*http.Request)                 // is called before each answer of bytes
	pace   func(http.ResponseWriter) io.Writer // what they are written through
}

// name is what file i is called.
func (p *pretended) name(i int) string { return fmt.Sprintf("%05d", i) }

// answer is a [count.Before].
func (p *pretended) answer(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.URL.Path == artifactsAPI && path.Base(r.URL.Query().Get("path")) == p.dir:
		files := make([]fileInfo, p.files)
		for i := range files {
			files[i] = fileInfo{p.name(i), false, p.size}
		}
		json.NewEncoder(w).Encode(map[string]any{"files": files})
	case isArtifact(r) && path.Base(path.Dir(r.URL.Path)) == p.dir:
		if p.before != nil {
			p.before(r)
		}
		if p.whole {
			r.Header.Del("Range")
		}
		w.Header().Set("ETag", `"pretended"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		if p.pace != nil {
			w = pacedWriter{w, p.pace(w)}
		}
		http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(endless{}, 0, p.size))
	default:
		return false
	}
	return true
}

// pacedWriter writes a body through another writer.
type pacedWriter struct {
	http.ResponseWriter
	through io.Writer
}

func (p pacedWriter) Write(b []byte) (int, error) { return p.through.Write(b) }

// endless is the same noise, over and over.
type endless struct{}

var someNoise = sync.OnceValue(func() []byte {
	b := make([]byte, 1<<20-4093) // no multiple of a block
	rand.NewChaCha8([32]byte{3}).Read(b)
	return b
})

func (endless) ReadAt(p []byte, off int64) (n int, err error) {
	noise := someNoise()
	for n < len(p) {
		n += copy(p[n:], noise[(off+int64(n))%int64(len(noise)):])
	}
	return n, nil
}
