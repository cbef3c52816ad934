package fs

import (
	"context"
	"slices"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// datasetsDir is datasets/: a file of records for each evaluation dataset.
type datasetsDir struct{ t *tree }

var _ Dir = datasetsDir{}

const datasetEnding = ".jsonl"

// datasetDigits is how much of a dataset's id tells it from others of its name: d- and 8
// hexadecimal digits.
const datasetDigits = 10

// datasetNames gives each dataset the name of its file, by the rule for runs.
func datasetNames(all []meta.Dataset) (names []string, at map[string]int) {
	names = uniqueNames(len(all), func(i int) (string, string) { return all[i].Name, all[i].ID }, datasetDigits, datasetEnding, nil)
	at = make(map[string]int, len(all))
	for i, n := range slices.Backward(names) {
		at[n] = i
	}
	return names, at
}

func (d datasetsDir) Lookup(ctx context.Context, name string) (*Node, error) {
	all, err := d.t.r.Datasets(ctx)
	if err != nil {
		return nil, err
	}
	_, at := all.Names(datasetNames)
	i, ok := at[name]
	if !ok {
		return nil, notExist(name)
	}
	records, err := d.t.r.DatasetTable(ctx, all.Items[i].ID)
	if err != nil {
		return nil, err
	}
	return tableNode(records, all.Items[i].Updated, d.t.r.TTL(false)), nil
}

func (d datasetsDir) List(ctx context.Context) (Listing, error) {
	all, err := d.t.r.Datasets(ctx)
	if err != nil {
		return nil, err
	}
	names, _ := all.Names(datasetNames)
	out := make(entries, 0, len(names))
	for _, n := range names {
		out = append(out, Entry{n, &Node{File: text(""), Later: true}})
	}
	return &out, nil
}
