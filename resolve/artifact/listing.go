package artifact

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// getListing asks for a listing at u.
func getListing(ctx context.Context, c *rest.Client, u string) ([]Entry, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if err := rest.CheckStatus(resp); err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answered(ctx)
	return decodeListing(c.Answer(resp))
}

// decodeListing reads the answer to ListArtifacts: names or paths, and a
// file_size that is left out when it is 0. An entry whose size is no number
// has -1, so that Clean leaves it out.
func decodeListing(r io.Reader) ([]Entry, error) {
	var out struct {
		Files []struct {
			Path  string          `json:"path"`
			IsDir bool            `json:"is_dir"`
			Size  json.RawMessage `json:"file_size"`
		} `json:"files"`
	}
	if err := rest.Decode(r, &out); err != nil {
		return nil, fmt.Errorf("the listing is no JSON of MLflow's: %w", err)
	}
	entries := make([]Entry, 0, len(out.Files))
	for _, f := range out.Files {
		var size rest.Int
		if !f.IsDir && len(f.Size) > 0 && size.UnmarshalJSON(f.Size) != nil {
			size = -1
		}
		entries = append(entries, Entry{Name: f.Path, IsDir: f.IsDir, Size: int64(size)})
	}
	return entries, nil
}
