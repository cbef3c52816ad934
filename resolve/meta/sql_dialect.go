package meta

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// dialect is what one kind of database has otherwise than the statements here. These are
// of SQL that all know: an argument is a ?, a name that is a word of the language stands
// in double quotes, a truth is a comparison, and a page is asked for by [querier.page].
type dialect struct {
	kind  string // for a person
	mark  string // before the number of an argument; empty: an argument is a ?
	quote string // around a name
	most  int    // arguments that a statement may have; 0: as many as are asked with here
	fetch bool   // a page is OFFSET … FETCH (SQL Server), and not LIMIT … OFFSET

	// nullsLast puts what is NULL behind the others of a descending order, where it isn't by itself.
	nullsLast string
	// lateral says that a join is planned as if its other side were all of a table, where that
	// is not asked for each row by itself (CROSS JOIN LATERAL).
	lateral bool
	// text is how a text is bound as an argument; nil: as it is.
	text func(string) any
	// otherName says what to set where the server's certificate is of another name.
	otherName string

	// columns lists the tables and columns of the schema that names without one are of.
	columns string
	hides   bool // columns does not list the tables that the user may not read
	// begin is how a question begins a transaction, all of whose statements see the tables
	// of one moment and can't write; nil where each statement is on its own.
	begin *sql.TxOptions

	code     func(error) string // of the database's answer; empty where err is none
	troubles map[string]trouble // by code, or by the beginning of one
}

// trouble is what an error says of a database.
type trouble int

const (
	unasked     trouble = iota // nothing: it is not the database's
	refused                    // it refuses the statement
	noTable                    // a table or a column is not there
	denied                     // it refuses the user
	unreachable                // it does not answer, or not now
)

// sqlError is an error of a database's, in words alone: a socket that is not there does
// not mean that what was asked for is not.
type sqlError struct {
	trouble
	words string
}

func (e *sqlError) Error() string { return e.words }

// Is matches fs.ErrPermission.
func (e *sqlError) Is(target error) bool { return target == fs.ErrPermission && e.trouble == denied }

func troubleOf(err error) trouble {
	if e := (*sqlError)(nil); errors.As(err, &e) {
		return e.trouble
	}
	return unasked
}

// Refused tells whether a database answers, and has not what is asked for or refuses it, so
// that it would again.
func Refused(err error) bool { t := troubleOf(err); return t == refused || t == noTable }

// classify makes an sqlError of what a driver says.
func (d *dialect) classify(err error) error {
	if e := (*sqlError)(nil); err == nil || errors.As(err, &e) {
		return err
	}
	code := d.code(err)
	if untrusted := (*tls.CertificateVerificationError)(nil); errors.As(err, &untrusted) {
		words := err.Error()
		if errors.As(err, new(x509.HostnameError)) {
			words += ": " + d.otherName
		}
		return &sqlError{refused, words}
	}
	if code == "" {
		return &sqlError{unreachable, err.Error()}
	}
	t, ok := refused, false
	for n := len(code); n > 0 && !ok; n-- {
		if known, found := d.troubles[code[:n]]; found {
			t, ok = known, true
		}
	}
	words := err.Error()
	if t == denied {
		words += ": check the user, the password and what it may read (SELECT)"
	}
	return &sqlError{t, words}
}

// spell writes a statement as the dialect has it.
func (d *dialect) spell(stmt string) string {
	if d.mark == "" && d.quote == `"` {
		return stmt
	}
	var b strings.Builder
	literal, args := false, 0
	for _, c := range stmt {
		switch {
		case c == '\'':
			literal = !literal
			b.WriteRune(c)
		case c == '"' && !literal:
			b.WriteString(d.quote)
		case c == '?' && !literal && d.mark != "":
			args++
			b.WriteString(d.mark + strconv.Itoa(args))
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// bind gives the arguments of a statement as the dialect has them.
func (d *dialect) bind(args []any) []any {
	if d.text == nil {
		return args
	}
	bound := slices.Clone(args)
	for i, a := range bound {
		if s, ok := a.(string); ok {
			bound[i] = d.text(s)
		}
	}
	return bound
}

// querier asks a database in its dialect.
type querier struct {
	db interface {
		QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	}
	*dialect
}

// page is the end of a statement that is to give no more than size rows, from offset on.
// It stands behind an ORDER BY.
func (q querier) page(offset, size int) string {
	if q.fetch {
		return fmt.Sprintf(" OFFSET %d ROWS FETCH NEXT %d ROWS ONLY", offset, size)
	}
	return fmt.Sprintf(" LIMIT %d OFFSET %d", size, offset)
}

// query reads all rows of a statement.
func query[T any](ctx context.Context, db querier, scan func(*sql.Rows) (T, error), stmt string, args ...any) ([]T, error) {
	rows, err := db.db.QueryContext(ctx, db.spell(stmt), db.bind(args)...)
	if err != nil {
		return nil, db.classify(err)
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, &sqlError{refused, err.Error()}
		}
		out = append(out, v)
	}
	return out, db.classify(rows.Err())
}

// queryPage reads one page of a statement that ends in its ORDER BY.
func queryPage[T any](ctx context.Context, db querier, size int, token string, scan func(*sql.Rows) (T, error), stmt string, args ...any) (Page[T], error) {
	offset := tokenOffset(token)
	items, err := query(ctx, db, scan, stmt+db.page(offset, size+1), args...)
	p := Page[T]{Items: items}
	if len(items) > size {
		p.Items, p.Next = items[:size], offsetToken(offset+size)
	}
	return p, err
}

// one reads the one row of a statement.
func one[T any](ctx context.Context, db querier, kind, name string, scan func(*sql.Rows) (T, error), stmt string, args ...any) (*T, error) {
	if !utf8.ValidString(name) { // PostgreSQL takes no such text
		return nil, notFound(kind, name)
	}
	rows, err := query(ctx, db, scan, stmt, args...)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, notFound(kind, name)
	}
	return &rows[0], nil
}
