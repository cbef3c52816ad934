package meta

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strings"
)

// sqlSchema is what tables and columns a database has: they grew over MLflow's
// versions.
type sqlSchema struct {
	revision string                     // of MLflow's migrations (alembic_version); empty where none is named
	columns  map[string]map[string]bool // of each table
	hides    bool                       // tables that the user may not read are not among them
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

// revisionAge is how a database's revision stands to those that are known.
type revisionAge int

const (
	unnamed revisionAge = iota // none is named
	older
	newest
	newer // it is none of those that are known
)

func (c *sqlSchema) age() revisionAge {
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
func (c *sqlSchema) words() string {
	return map[revisionAge]string{
		unnamed: "of no revision that is named",
		older:   "of revision " + c.revision + ", which is older than MLflow 3.17",
		newest:  "of revision " + c.revision + ", that of MLflow 3.17",
		newer:   "of revision " + c.revision + ", which is newer than what is known here",
	}[c.age()]
}

// readSchema reads the columns and the revision.
func readSchema(ctx context.Context, db querier) (*sqlSchema, error) {
	c := &sqlSchema{columns: map[string]map[string]bool{}, hides: db.hides}
	rows, err := query(ctx, db, func(r *sql.Rows) (c [2]string, err error) {
		err = r.Scan(&c[0], &c[1])
		return c, err
	}, db.columns)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if c.columns[r[0]] == nil {
			c.columns[r[0]] = map[string]bool{}
		}
		c.columns[r[0]][r[1]] = true
	}
	if !db.hides && !c.has("alembic_version", "version_num") {
		return c, nil
	}
	if c.revision, err = readRevision(ctx, db); troubleOf(err) == noTable {
		err = nil
	}
	return c, err
}

// readRevision reads the revision; where there are several branches, all of them.
func readRevision(ctx context.Context, db querier) (string, error) {
	all, err := query(ctx, db, scanOneText, "SELECT version_num FROM alembic_version ORDER BY version_num")
	return strings.Join(all, " "), err
}

// has tells whether there is a column. Of a table that is hidden from the user it says so,
// too: the statement that asks for it is refused, where none would be taken for a table
// that is empty.
func (c *sqlSchema) has(table, column string) bool {
	return c.columns[table][column] || c.isHidden(table)
}

// since is the revision that makes each table that is read.
var since = map[string]string{
	"experiments": revisions[0], "runs": revisions[0], "params": revisions[0], "tags": revisions[0], "metrics": revisions[0],
	"latest_metrics": "89d4b8295536", "registered_models": "2b4d017a5e9b", "model_versions": "2b4d017a5e9b",
	"model_version_tags": "27a6a02d2cf1", "registered_model_tags": "728d730b5ebd", "registered_model_aliases": "3500859a5d39",
	"datasets": "7f2a7d5fae7d", "inputs": "7f2a7d5fae7d", "input_tags": "7f2a7d5fae7d",
	"trace_info": "867495a8f9d4", "trace_tags": "867495a8f9d4", "trace_request_metadata": "867495a8f9d4",
	"logged_models": "400f98739977", "assessments": "770bee3ae1dd", "spans": "a1b2c3d4e5f6", "entity_associations": "de4033877273",
	"evaluation_datasets": "71994744cf8e", "evaluation_dataset_records": "71994744cf8e",
}

// isHidden tells whether a database of the revision has a table, and the user doesn't see
// it. Of a revision that is not known it can't be told.
func (c *sqlSchema) isHidden(table string) bool {
	if _, seen := c.columns[table]; seen || !c.hides {
		return false
	}
	made, now := slices.Index(revisions, since[table]), slices.Index(revisions, c.revision)
	return made >= 0 && now >= made
}

// hidden are the tables that are.
func (c *sqlSchema) hidden() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(since)), func(table string) bool { return !c.isHidden(table) })
}

// or gives column where table has it, else the SQL literal instead.
func (c *sqlSchema) or(table, column, instead string) string {
	if c.has(table, column) {
		return column
	}
	return instead
}

// Conditions that always hold, and never. SQL Server and PostgreSQL take no number for one.
const (
	always = "1 = 1"
	never  = "1 = 0"
)

// mine is the condition that a row of table, by the name alias, is of this
// workspace. A database without workspaces is all of the default one.
func (v sqlView) mine(table, alias string) string {
	switch {
	case v.has(table, "workspace"):
		return alias + ".workspace = '" + v.workspace + "'"
	case v.workspace != defaultWorkspace:
		return never
	}
	return always
}

// inMine is the condition that a row is of an experiment of this workspace.
func (v sqlView) inMine() string {
	if !v.has("experiments", "workspace") {
		return v.mine("experiments", "")
	}
	return "experiment_id IN (SELECT e.experiment_id FROM experiments e WHERE " + v.mine("experiments", "e") + ")"
}
