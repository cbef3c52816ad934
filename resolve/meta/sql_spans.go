package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ErrSpansMoved says that spans are not in the database, or not any more: MLflow archives
// them, or deletes the trace. Who asks for the trace anew learns which.
var ErrSpansMoved = fmt.Errorf("the spans are not in the database any more: read the trace anew: %w", errors.ErrUnsupported)

// spansPage is how many spans are read at a time.
const spansPage = 50

// Spans gives ErrSpansMoved also in the middle, where they are archived while they are
// read.
func (s *sqlStore) Spans(ctx context.Context, t *Trace) (io.ReadCloser, error) {
	return &spanReader{next: func(token string) (Page[string], error) {
		return ask(ctx, s, func(ctx context.Context, v sqlView) (Page[string], error) { return v.spans(ctx, t.ID, token) })
	}}, nil
}

// sqlSpan is a row of spans. MLflow leaves those of an archived trace, without content.
type sqlSpan struct {
	content string
	child   int
	start   int64
	id      string
}

func scanSpan(rows *sql.Rows) (s sqlSpan, err error) {
	err = rows.Scan(&s.content, &s.child, &s.start, &s.id)
	return s, err
}

// token is that of the page behind the span.
func (s *sqlSpan) token() string { return fmt.Sprintf("%d %d %s", s.child, s.start, s.id) }

// isChild puts the root before the other spans.
const isChild = "CASE WHEN s.parent_span_id IS NULL THEN 0 ELSE 1 END"

// spans are in MLflow's own order (SqlAlchemyStore._get_spans_with_trace_info): the root
// first, the others as they began.
func (v sqlView) spans(ctx context.Context, trace, token string) (p Page[string], err error) {
	if !v.has("spans", "content") {
		return p, nil
	}
	after, args := afterSpan(token)
	rows, err := query(ctx, v.db, scanSpan, "SELECT s.content, "+isChild+", s.start_time_unix_nano, s.span_id FROM spans s WHERE s.trace_id = ?"+after+
		" ORDER BY "+isChild+", s.start_time_unix_nano, s.span_id"+v.db.page(0, spansPage+1), append([]any{trace}, args...)...)
	if err != nil {
		return p, err
	}
	if len(rows) > spansPage {
		rows = rows[:spansPage]
		p.Next = rows[spansPage-1].token()
	}
	for i := range rows {
		if rows[i].content != "" {
			p.Items = append(p.Items, rows[i].content)
		}
	}
	if p.Next == "" || len(p.Items) < len(rows) {
		err = v.hasSpans(ctx, trace)
	}
	return p, err
}

// afterSpan is the condition of the page of a token.
func afterSpan(token string) (condition string, args []any) {
	key := strings.SplitN(token, " ", 3)
	if len(key) < 3 {
		return "", nil
	}
	child, _ := strconv.Atoi(key[0])
	start, _ := strconv.ParseInt(key[1], 10, 64)
	return " AND (" + isChild + " > ? OR " + isChild + " = ? AND (s.start_time_unix_nano > ? OR s.start_time_unix_nano = ? AND s.span_id > ?))",
		[]any{child, child, start, start, key[2]}
}

// hasSpans is an error unless the database is where the spans of a trace are. Asked
// behind their rows it tells that these were all: MLflow clears them in the transaction
// that writes the new place (SqlAlchemyStore._finalize_archived_trace).
func (v sqlView) hasSpans(ctx context.Context, trace string) error {
	at, err := query(ctx, v.db, scanOneText, `SELECT p.value FROM trace_tags p WHERE p.request_id = ? AND p."key" = ?`, trace, spansLocation)
	if err == nil && (len(at) != 1 || at[0] != trackingStore) {
		err = fmt.Errorf("trace %s: %w", trace, ErrSpansMoved)
	}
	return err
}
