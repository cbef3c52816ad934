package meta

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// whose are the variables by which libpq chooses a database, or whose rights are asked
// with; MySQL's client has none.
var whose = []string{"PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGOPTIONS", "PGTARGETSESSIONATTRS", "USER"}

// Identity tells one database from another, and who asks it, as far as [rest.Redact] does
// not show: a hash of what the URI and the environment say, but of passwords. Of an sqlite
// file it is the workspace; of what is no database it is empty.
func Identity(uri string, env rest.Env) string {
	if scheme, _, _ := strings.Cut(strings.ToLower(uri), ":"); strings.HasPrefix(scheme, "sqlite") {
		return sqlWorkspace(env)
	}
	if !rest.IsDatabase(uri) {
		return ""
	}
	u, err := parseSQL(uri)
	if err != nil {
		return "" // it is not opened, either
	}
	if odbc := u.take("odbc_connect"); odbc != "" {
		u.readODBC(odbc)
	}
	for key := range u.query {
		if isPassword(key) {
			u.query.Del(key)
		}
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %d %q %q %q", u.dialect, u.user, u.host, u.port, u.database, u.query.Encode(), sqlWorkspace(env))
	if u.dialect != "mysql" && u.dialect != "mssql" {
		for _, v := range whose {
			fmt.Fprintf(h, " %q", env(v))
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
