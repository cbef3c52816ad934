package meta

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
)

// sqliteSchema is what tables and columns a file has: they grew over MLflow's
// versions.
type sqliteSchema struct {
	file *sqliteFile
	generation
	columns map[string]map[string]bool // of each table
}

// revisions are those of MLflow's migrations, in their order
// (mlflow/store/db_migrations/versions), up to the head of MLflow 3.17.
var revisions = strings.Fields(`
	451aebb31d03 90e64c465722 181f10493468 df50e92ffc5e 7ac759974ad8 89d4b8295536 2b4d017a5e9b cfd24bdc0731
	0a8213491aaa 728d730b5ebd 27a6a02d2cf1 84291f40a231 a8c4a736bde6 39d1c3be5f05 c48cb773bb87 bd07f7e963c5
	0c779009ac13 cc1f77228345 97727af70f4d 3500859a5d39 7f2a7d5fae7d 2d6e25af4d3e acf3f17fdcc7 867495a8f9d4
	5b0e9adcef9c 4465047574b1 f5a4f2784254 0584bdc529eb 400f98739977 6953534de441 bda7b8c39065 cbc13b556ace
	770bee3ae1dd a1b2c3d4e5f6 de4033877273 1a0cddfcaa16 534353b11cbc 71994744cf8e 3da73c924c2f bf29a5ff90ea
	1bd49d398cd23 b7c8d9e0f1a2 5d2d30f0abce c9d4e5f6a7b8 2c33131f4dae d3e4f5a6b7c8 d0e1f2a3b4c5 c8d9e0f1a2b3
	1b5f0d9ad7c1 e1f2a3b4c5d6 76601a5f987d c3d6457b6d8a a5b4c3d2e1f0 ae8bbe7743c9 7d34483879f0 da6fb0208061
	89d3d66ed43f b7e4c1a90f23 a8b9c0d1e2f3 c1d2e3f4a5b6 c3d9e7f1a2b4 6f8d9c3b2a1e 1971f2d9a75b 17e22815139b
	b7e2c1a4d9f3 75868b020152 dc11669786a5`)

// revisionAge is how a file's revision stands to those that are known.
type revisionAge int

const (
	unnamed revisionAge = iota // the file names none
	older
	newest
	newer // it is none of those that are known
)

func (c *sqliteSchema) age() revisionAge {
	switch i := slices.Index(revisions, c.revision); {
	case c.revision == "":
		return unnamed
	case i < 0:
		return newer
	case i < len(revisions)-1:
		return older
	}
	return newest
}

// words say the revision.
func (c *sqliteSchema) words() string {
	return map[revisionAge]string{
		unnamed: "of no revision that the file names",
		older:   "of revision " + c.revision + ", which is older than MLflow 3.17",
		newest:  "of revision " + c.revision + ", that of MLflow 3.17",
		newer:   "of revision " + c.revision + ", which is newer than what is known here",
	}[c.age()]
}

// generation is what an upgrade changes: the tables, and after them the revision.
type generation struct {
	tables   int64  // sqlite's own number, which each change of a table raises
	revision string // of MLflow's migrations (alembic_version); empty where the file names none
}

func generationOf(ctx context.Context, db *sql.DB) (g generation, err error) {
	err = db.QueryRowContext(ctx, "PRAGMA schema_version").Scan(&g.tables)
	var revision sql.NullString
	if err == nil && db.QueryRowContext(ctx, "SELECT group_concat(version_num, ' ') FROM alembic_version").Scan(&revision) == nil {
		g.revision = revision.String
	}
	return g, err
}

func readSchema(ctx context.Context, f *sqliteFile, g generation) (*sqliteSchema, error) {
	c := &sqliteSchema{file: f, generation: g, columns: map[string]map[string]bool{}}
	rows, err := query(ctx, f.db, func(r *sql.Rows) (c [2]string, err error) {
		err = r.Scan(&c[0], &c[1])
		return c, err
	}, `SELECT m.name, p.name FROM sqlite_master m, pragma_table_info(m.name) p WHERE m.type = 'table'`)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if c.columns[r[0]] == nil {
			c.columns[r[0]] = map[string]bool{}
		}
		c.columns[r[0]][r[1]] = true
	}
	return c, nil
}

func (c *sqliteSchema) has(table, column string) bool { return c.columns[table][column] }

// or gives column where table has it, else the SQL literal instead.
func (c *sqliteSchema) or(table, column, instead string) string {
	if c.has(table, column) {
		return column
	}
	return instead
}

// sqlView is a database as it was when a question came.
type sqlView struct {
	db *sql.DB
	*sqliteSchema
	workspace string
}

// settled tells whether the tables are still those of the view, and none is
// being replaced (alembic's batch_alter_table copies it to _alembic_tmp_<table>):
// what they lack won't come by waiting.
func (v sqlView) settled(ctx context.Context) bool {
	for table := range v.columns {
		if strings.HasPrefix(table, "_alembic_tmp_") {
			return false
		}
	}
	n, err := generationOf(ctx, v.db)
	return err != nil || n == v.generation
}

// mine is the condition that a row of table, by the name alias, is of this
// workspace. A file without workspaces is all of the default one.
func (v sqlView) mine(table, alias string) string {
	switch {
	case v.has(table, "workspace"):
		return alias + ".workspace = '" + strings.ReplaceAll(v.workspace, "'", "''") + "'"
	case v.workspace != defaultWorkspace:
		return "0"
	}
	return "1"
}

// inMine is the condition that a row is of an experiment of this workspace.
func (v sqlView) inMine() string {
	if !v.has("experiments", "workspace") {
		return v.mine("experiments", "")
	}
	return "experiment_id IN (SELECT e.experiment_id FROM experiments e WHERE " + v.mine("experiments", "e") + ")"
}

// query reads all rows of a statement.
func query[T any](ctx context.Context, db *sql.DB, scan func(*sql.Rows) (T, error), stmt string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, stmt, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// queryPage reads one page of a statement that ends in its ORDER BY.
func queryPage[T any](ctx context.Context, db *sql.DB, size int, token string, scan func(*sql.Rows) (T, error), stmt string, args ...any) (Page[T], error) {
	offset := tokenOffset(token)
	items, err := query(ctx, db, scan, fmt.Sprintf("%s LIMIT %d OFFSET %d", stmt, size+1, offset), args...)
	p := Page[T]{Items: items}
	if len(items) > size {
		p.Items, p.Next = items[:size], offsetToken(offset+size)
	}
	return p, err
}

// one reads the one row of a statement.
func one[T any](ctx context.Context, db *sql.DB, kind, name string, scan func(*sql.Rows) (T, error), stmt string, args ...any) (*T, error) {
	rows, err := query(ctx, db, scan, stmt, args...)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, notFound(kind, name)
	}
	return &rows[0], nil
}
