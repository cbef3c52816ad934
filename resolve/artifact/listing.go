package artifact

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// maxEntries is how many entries a listing of a server has, of all its pages.
const maxEntries = 1 << 20

// entryBytes is what an entry takes in memory beside its name.
const entryBytes = 100

// getListing asks for a listing at u: MLflow's own server gives all of it, Databricks a
// page after another.
func getListing(ctx context.Context, c *rest.Client, u *url.URL) (entries []Entry, err error) {
	at, token, bytes := *u, "", int64(0)
	for range maxPages {
		some, next, err := getPage(ctx, c, &at)
		for _, e := range some {
			bytes += int64(len(e.Name)) + entryBytes
		}
		if entries = append(entries, some...); err != nil || next == "" || len(some) == 0 && next == token {
			return entries, err
		}
		if next == token || len(entries) > maxEntries || bytes > c.MostAnswer() {
			break
		}
		token = next
		q := u.Query()
		q.Set("page_token", token)
		at.RawQuery = q.Encode()
	}
	return nil, fmt.Errorf("GET %s: the listing does not end", u.EscapedPath())
}

func getPage(ctx context.Context, c *rest.Client, u *url.URL) (entries []Entry, next string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	if err := rest.CheckStatus(resp); err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	answered(ctx)
	return decodeListing(c.Answer(resp))
}

// listedFile is an entry of a listing: of MLflow's (FileInfo) and of DBFS', or of the
// Files API of Databricks (DirectoryEntry).
type listedFile struct {
	Path     string          `json:"path"`
	IsDir    bool            `json:"is_dir"`
	IsDirToo bool            `json:"is_directory"`
	Size     json.RawMessage `json:"file_size"`
	Modified rest.Int        `json:"last_modified"` // ms since 1970
}

func (f *listedFile) entry() Entry {
	var size rest.Int
	dir := f.IsDir || f.IsDirToo
	if !dir && len(f.Size) > 0 && size.UnmarshalJSON(f.Size) != nil {
		size = -1
	}
	e := Entry{Name: f.Path, IsDir: dir, Size: int64(size)}
	if f.Modified > 0 {
		e.Mtime = time.UnixMilli(int64(f.Modified))
	}
	return e
}

// decodeListing reads the answer to a listing: names or paths, and a file_size that is
// left out when it is 0. An entry whose size is no number has -1, so that Clean leaves it
// out.
func decodeListing(r io.Reader) (entries []Entry, next string, err error) {
	var out struct {
		Files    []listedFile `json:"files"`
		Contents []listedFile `json:"contents"`
		Next     string       `json:"next_page_token"`
	}
	if err := rest.Decode(r, &out); err != nil {
		return nil, "", fmt.Errorf("the listing is no JSON of MLflow's: %w", err)
	}
	for _, list := range [][]listedFile{out.Files, out.Contents} {
		for i := range list {
			entries = append(entries, list[i].entry())
		}
	}
	return entries, out.Next, nil
}
