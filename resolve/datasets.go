package resolve

import (
	"bytes"
	"context"
	"slices"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// Datasets gives all evaluation datasets; none where they are left out.
func (r *Resolver) Datasets(ctx context.Context) (*Index[meta.Dataset], error) {
	return r.datasets.Get(ctx, "", func(ctx context.Context) (*Index[meta.Dataset], error) {
		found, err := all(ctx, r.tracking.SearchDatasets)
		if r.LeavesOut(Datasets, "", err) {
			found, err = nil, nil
		}
		found = slices.DeleteFunc(found, func(d meta.Dataset) bool {
			malformed := !meta.ValidDatasetID(d.ID)
			if malformed {
				r.log.Warn("a dataset is left out: its id is malformed", "dataset", d.Name)
			}
			return malformed
		})
		return &Index[meta.Dataset]{Items: found}, err
	})
}

// DatasetTable is the records of a dataset, one a line, the oldest first.
func (r *Resolver) DatasetTable(ctx context.Context, id string) (*Table, error) {
	token := ""
	next := func(ctx context.Context) (page, error) {
		p, err := r.tracking.DatasetRecords(ctx, id, token)
		if err != nil {
			return page{}, err
		}
		var lines bytes.Buffer
		for _, record := range p.Items {
			lines.WriteString(record)
			lines.WriteByte('\n')
		}
		last := p.Next == "" || p.Next == token
		token = p.Next
		return page{text: lines.Bytes(), last: last}, nil
	}
	return r.tables.get(ctx, "dataset\x00"+id, next, func(first int) int64 { return largeTable * int64(first) })
}
