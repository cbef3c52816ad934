package meta

import (
	"context"
	"database/sql"
	"encoding/json"
)

// jsonAssessment is an assessment in the shape of Assessment.to_dictionary.
type jsonAssessment struct {
	ID     string `json:"assessment_id"`
	Name   string `json:"assessment_name"`
	Trace  string `json:"trace_id"`
	Span   string `json:"span_id,omitempty"`
	Source struct {
		Type string `json:"source_type"`
		ID   string `json:"source_id,omitempty"`
	} `json:"source"`
	Created     string          `json:"create_time"`
	Updated     string          `json:"last_update_time"`
	Feedback    *jsonFeedback   `json:"feedback,omitempty"`
	Expectation any             `json:"expectation,omitempty"`
	Issue       json.RawMessage `json:"issue,omitempty"`
	Rationale   string          `json:"rationale,omitempty"`
	Metadata    json.RawMessage `json:"metadata,omitempty"`
	Overrides   string          `json:"overrides,omitempty"`
	Valid       bool            `json:"valid"`
}

type jsonFeedback struct {
	Value json.RawMessage `json:"value"`
	Error json.RawMessage `json:"error,omitempty"`
}

// setValue takes what the database holds, JSON, for an assessment of a type. An
// expectation that is no number, truth or text is JSON in a text
// (ExpectationValue.to_proto).
func (a *jsonAssessment) setValue(kind string, value, failed json.RawMessage) {
	switch kind {
	case "feedback":
		a.Feedback = &jsonFeedback{value, failed}
	case "issue":
		a.Issue = value
	default:
		if len(value) > 0 && (value[0] == '{' || value[0] == '[' || value[0] == 'n') {
			a.Expectation = map[string]any{"serialized_value": map[string]string{"serialization_format": "JSON_FORMAT", "value": string(value)}}
		} else {
			a.Expectation = map[string]json.RawMessage{"value": value}
		}
	}
}

// assessments adds those of traces, as they were made.
func (v sqlView) assessments(ctx context.Context, in string, ids []any, at map[string]*jsonTrace) error {
	if !v.has("assessments", "trace_id") {
		return nil
	}
	rows, err := query(ctx, v.db, scanAssessment, "SELECT a.assessment_id, a.name, a.trace_id, a.span_id, a.source_type, a.source_id, a.created_timestamp, a.last_updated_timestamp,"+
		" a.assessment_type, a.value, a.error, a.rationale, a.assessment_metadata, a.overrides, a.valid FROM assessments a WHERE a.trace_id IN ("+in+") ORDER BY a.created_timestamp, a.assessment_id", ids...)
	if err != nil {
		return err
	}
	for i := range rows {
		raw, err := marshal(&rows[i])
		if err != nil {
			return err
		}
		if j := at[rows[i].Trace]; j != nil {
			j.Assessments = append(j.Assessments, raw)
		}
	}
	return nil
}

func scanAssessment(rows *sql.Rows) (a jsonAssessment, err error) {
	var span, source, value, failed, rationale, metadata, overrides sql.NullString
	var kind string
	var created, updated int64
	err = rows.Scan(&a.ID, &a.Name, &a.Trace, &span, &a.Source.Type, &source, &created, &updated,
		&kind, &value, &failed, &rationale, &metadata, &overrides, &a.Valid)
	a.Span, a.Source.ID, a.Rationale, a.Overrides = span.String, source.String, rationale.String, overrides.String
	a.Created, a.Updated = protoTime(created), protoTime(updated)
	a.setValue(kind, validJSON(value), validJSON(failed))
	a.Metadata = validJSON(metadata)
	return a, err
}

// validJSON is the JSON in a column, or a text where it is none: Python's has NaN.
func validJSON(s sql.NullString) json.RawMessage {
	if !s.Valid {
		return nil
	}
	if json.Valid([]byte(s.String)) {
		return json.RawMessage(s.String)
	}
	b, _ := json.Marshal(s.String) // can't fail: it is a text
	return b
}
