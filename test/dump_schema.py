"""Prints the tables of the sqlite store that the installed MLflow makes.

The output is cmd/mlflowfs/demo_schema.sql; a test holds the two together.
"""

import os
import sqlite3
import sys
import tempfile

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore


def main():
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "mlflow.db")
        SqlAlchemyStore("sqlite:///" + path, d)
        db = sqlite3.connect(path)
        print("-- Tables as MLflow 3 makes them: written by test/dump_schema.py, not by hand.")
        # Migrations make indexes in no fixed order; tables depend on none.
        for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'index', type, name"):
            print("\n".join(line.rstrip() for line in sql.replace("\t", "  ").splitlines()) + ";")
        for table in ("alembic_version", "workspaces"):
            for row in db.execute("SELECT * FROM " + table):
                values = ", ".join("NULL" if v is None else "'" + v + "'" for v in row)
                print(f"INSERT INTO {table} VALUES ({values});")


if __name__ == "__main__":
    sys.exit(main())
