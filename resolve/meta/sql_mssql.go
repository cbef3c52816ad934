package meta

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	mssql "github.com/microsoft/go-mssqldb"
	"github.com/microsoft/go-mssqldb/msdsn"
)

var sqlServerDialect = dialect{
	kind: "SQL Server", mark: "@p", quote: `"`, fetch: true, most: 2000, text: varchar,
	otherName: "give the URI a host that the certificate names, or HostNameInCertificate",
	columns:   "SELECT TABLE_NAME, COLUMN_NAME FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_SCHEMA = SCHEMA_NAME() AND TABLE_NAME IN (" + sqlTables + ")",
	hides:     true,
	begin:     &sql.TxOptions{}, // it knows none that is read-only, nor, unless set up so, of one moment; nothing but SELECT is sent
	code: func(err error) string {
		if e := (mssql.Error{}); errors.As(err, &e) {
			return strconv.Itoa(int(e.Number)) + "."
		}
		return ""
	},
	// sys.messages
	troubles: map[string]trouble{
		"207.": noTable, "208.": noTable,
		"229.": denied, "230.": denied, "916.": denied, "18456.": denied, "18452.": denied,
		"1205.": unreachable, "1222.": unreachable, "6005.": unreachable, "10928.": unreachable, "10929.": unreachable,
		"40197.": unreachable, "40501.": unreachable, "40613.": unreachable, "49918.": unreachable, "49919.": unreachable, "49920.": unreachable,
	},
}

// varchar binds a text of ASCII as what MLflow's columns are: SQL Server makes nvarchar of
// a column that is compared with an nvarchar, and uses no index of it.
func varchar(s string) any {
	if strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) {
		return s
	}
	return mssql.VarChar(s)
}

// msSQLConnector makes connections by what the URI says, as pyodbc and pymssql read it.
func msSQLConnector(u *sqlURI) (driver.Connector, []string, error) {
	if odbc := u.take("odbc_connect"); odbc != "" {
		u.readODBC(odbc)
	}
	fail := func(err error) (driver.Connector, []string, error) {
		return nil, nil, fmt.Errorf("the SQL Server database %s: %w", u.at(), err)
	}
	byName := map[string]string{}
	for key := range u.query {
		byName[strings.ToLower(key)] = u.query.Get(key)
	}
	yes := func(v string) bool { return v == "yes" || v == "true" || v == "1" || v == "mandatory" }
	q := url.Values{"database": {u.database}, "dial timeout": {"5"}}
	switch encrypt := strings.ToLower(byName["encrypt"]); {
	case encrypt == "strict":
		q.Set("encrypt", "strict")
	case yes(encrypt) || encrypt == "" && strings.Contains(byName["driver"], "18"): // the default of ODBC Driver 18, and of none before it
		q.Set("encrypt", "true")
	default:
		q.Set("encrypt", "false")
	}
	if yes(strings.ToLower(byName["trustservercertificate"])) {
		q.Set("trustservercertificate", "true")
	}
	if v := byName["hostnameincertificate"]; v != "" {
		q.Set("hostnameincertificate", v)
	}
	if yes(strings.ToLower(byName["trusted_connection"])) || byName["authentication"] != "" || u.user == "" {
		return fail(errors.New("only a user and a password of the SQL Server's own are taken: write mssql+pyodbc://user:password@host:1433/database"))
	}
	config, err := msdsn.Parse((&url.URL{Scheme: "sqlserver", Host: "host", RawQuery: q.Encode()}).String())
	if err != nil {
		return fail(err)
	}
	config.Host, config.Instance, _ = strings.Cut(u.host, `\`)
	config.Port = uint64(u.port)
	if config.TLSConfig != nil && byName["hostnameincertificate"] == "" {
		config.TLSConfig.ServerName = config.Host
	}
	config.User, config.Password = u.user, u.password
	c := mssql.NewConnectorConfig(config)
	c.Dialer = sqlDialer()
	for key := range u.query {
		switch strings.ToLower(key) {
		case "driver", "encrypt", "trustservercertificate", "hostnameincertificate", "trusted_connection":
			u.query.Del(key)
		}
	}
	return c, u.left(), nil
}

// readODBC takes a connection string of ODBC's in place of the URI's parts:
// Driver={…};Server=host,1433;Database=…;UID=…;PWD=….
func (u *sqlURI) readODBC(s string) {
	for s != "" {
		var key, v string
		eq, end := strings.IndexByte(s, '='), strings.IndexByte(s, ';')
		if eq < 0 || end >= 0 && end < eq { // what has no = may be the rest of a password
			_, s, _ = strings.Cut(s, ";")
			continue
		}
		key, s = s[:eq], s[eq+1:]
		if strings.HasPrefix(s, "{") { // } in it is doubled
			end := 1
			for end < len(s) && (s[end] != '}' || strings.HasPrefix(s[end:], "}}")) {
				if s[end] == '}' {
					end++
				}
				end++
			}
			v, s = strings.ReplaceAll(s[1:min(end, len(s))], "}}", "}"), s[min(end+1, len(s)):]
			s = strings.TrimPrefix(s, ";")
		} else {
			v, s, _ = strings.Cut(s, ";")
		}
		switch key = strings.ToLower(strings.TrimSpace(key)); key {
		case "":
		case "server", "addr", "address":
			host, port, _ := strings.Cut(strings.TrimPrefix(v, "tcp:"), ",")
			u.host, u.port = host, 0
			if n, err := strconv.Atoi(strings.TrimSpace(port)); err == nil {
				u.port = n
			}
		case "database":
			u.database = v
		case "uid":
			u.user = v
		case "pwd":
			u.password = v
		default:
			u.query.Set(key, v)
		}
	}
}
