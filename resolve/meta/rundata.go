package meta

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Pair is a param or a tag.
type Pair struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Point is one value of a metric.
type Point struct {
	Key       string   `json:"key"`
	Value     Value    `json:"value"`
	Timestamp rest.Int `json:"timestamp"` // ms since 1970
	Step      rest.Int `json:"step"`
}

// Value is a metric's value as protobuf's JSON writes it: a number's digits,
// NaN, Infinity or -Infinity.
type Value string

// UnmarshalJSON takes 0.5 and "NaN".
func (v *Value) UnmarshalJSON(b []byte) error {
	*v = Value(strings.Trim(string(b), `"`))
	return nil
}

var _ json.Unmarshaler = (*Value)(nil)

// Data is what was logged to a run. Of a metric it is the last point.
type Data struct {
	Params  []Pair  `json:"params"`
	Tags    []Pair  `json:"tags"`
	Metrics []Point `json:"metrics"`
}

// Data reads what was logged from the run's JSON, which it must have.
func (r *Run) Data() (Data, error) {
	var doc struct{ Data Data }
	if err := json.Unmarshal(r.JSON, &doc); err != nil {
		return Data{}, fmt.Errorf("run %s: %w", r.ID, err)
	}
	return doc.Data, nil
}
