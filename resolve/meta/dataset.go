package meta

import (
	"context"
	"time"
)

// Dataset is an evaluation dataset (mlflow.genai.datasets). Several may have one name.
type Dataset struct {
	ID      string // d- and 32 hexadecimal digits
	Name    string
	Created time.Time
	Updated time.Time
}

// Datasets tells of evaluation datasets, by the same rules as [Tracking]. A store that
// knows none has none.
type Datasets interface {
	SearchDatasets(ctx context.Context, token string) (Page[Dataset], error)
	// DatasetRecords gives the records of a dataset, the oldest first: each is JSON, as
	// MLflow's DatasetRecord.to_dict gives it, on one line.
	DatasetRecords(ctx context.Context, id, token string) (Page[string], error)
}

// ValidDatasetID tells whether id can be a dataset's id.
func ValidDatasetID(id string) bool { return ValidTraceID(id) }

// Page sizes of datasets and their records.
const (
	datasetsPage = 1000
	recordsPage  = 100
)
