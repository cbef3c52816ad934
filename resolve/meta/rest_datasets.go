package meta

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

type restDataset struct {
	ID      string   `json:"dataset_id"`
	Name    string   `json:"name"`
	Created rest.Int `json:"created_time"`
	Updated rest.Int `json:"last_update_time"`
}

func (d *restDataset) dataset() Dataset {
	return Dataset{ID: d.ID, Name: d.Name, Created: millis(int64(d.Created)), Updated: millis(int64(d.Updated))}
}

func (s *restStore) SearchDatasets(ctx context.Context, token string) (Page[Dataset], error) {
	var out struct {
		Datasets []restDataset `json:"datasets"`
		Next     string        `json:"next_page_token"`
	}
	body := map[string]any{"max_results": datasetsPage}
	if token != "" {
		body["page_token"] = token
	}
	err := s.c.API3(ctx, "datasets/search", nil, body, &out)
	var e *rest.Error
	if errors.As(err, &e) && e.NoSuchEndpoint() {
		return Page[Dataset]{}, nil // MLflow before 3.4
	}
	return page(out.Datasets, out.Next, (*restDataset).dataset), err
}

// DatasetRecords asks for fewer where as many are too long for an answer. The answer holds
// them as JSON in a text.
func (s *restStore) DatasetRecords(ctx context.Context, id, token string) (p Page[string], err error) {
	for n := recordsPage; n > 0; n /= 10 {
		var out struct {
			Records string `json:"records"`
			Next    string `json:"next_page_token"`
		}
		err = name(s.c.API3(ctx, "datasets/"+url.PathEscape(id)+"/records", search(n, token, ""), nil, &out))
		if errors.Is(err, rest.ErrTooLong) {
			continue
		}
		p.Next = out.Next
		if err == nil && out.Records != "" {
			p.Items, err = elements(out.Records)
		}
		return p, err
	}
	return p, err
}

func appendElement(out []string, element []byte) []string {
	if e := strings.TrimSpace(string(element)); e != "" {
		out = append(out, e)
	}
	return out
}

// elements are the parts of a list in Python's JSON, which knows NaN, each on one line.
func elements(list string) (out []string, err error) {
	b := []byte(list)
	depth, begin, inText := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '\n' || c == '\r':
			b[i] = ' '
		case c == '[' || c == '{':
			if depth++; depth == 1 {
				begin = i + 1
			}
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return appendElement(out, b[begin:i]), nil
			}
		case c == ',' && depth == 1:
			out, begin = appendElement(out, b[begin:i]), i+1
		}
	}
	return nil, errors.New("the server's answer holds no list of records")
}
