package meta

import (
	"database/sql/driver"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// sqlURI is a database's URI, as SQLAlchemy reads it (sqlalchemy.engine.url._parse_url).
type sqlURI struct {
	dialect        string // postgresql, mysql, mssql; in lower case
	user, password string
	host           string // without brackets; empty: the driver's own
	port           int    // 0: the driver's own
	database       string
	query          url.Values
}

var sqlPattern = regexp.MustCompile(`^([\w+]+)://(?:([^:/]*)(?::([^@]*))?@)?(?:(?:\[([^/?]+)\]|([^/:?]+))?(?::([^/?]*))?)?(?:/([^?]*))?(?:\?(.*))?$`)

// queryInPassword is what looks as if an @ of a query ended a password.
var queryInPassword = regexp.MustCompile(`^[0-9]*/[^?]*\?[^=]*=`)

func parseSQL(uri string) (u sqlURI, err error) {
	bad := func(why string) (sqlURI, error) {
		scheme, _, _ := strings.Cut(uri, ":")
		return u, fmt.Errorf("the tracking URI of a %s:// database %s: write %s://user:password@host:port/database, with %%40 for an @ in the user, the password, the database or a parameter", scheme, why, scheme)
	}
	m := sqlPattern.FindStringSubmatch(uri)
	if m == nil {
		return bad("can't be understood")
	}
	if strings.Contains(m[5]+m[7], "@") || m[2] != "" && strings.Contains(m[8], "@") || queryInPassword.MatchString(m[3]) || strings.Contains(m[2], "@") && strings.Contains(m[3], "?") {
		return bad("has an @ where it is not clear what it ends")
	}
	u.dialect, _, _ = strings.Cut(strings.ToLower(m[1]), "+")
	u.host = m[4] + m[5]
	for part, text := range map[*string]string{&u.user: m[2], &u.password: m[3], &u.database: m[7]} {
		*part = rest.Unquote(text)
	}
	if m[6] != "" {
		if u.port, err = strconv.Atoi(m[6]); err != nil || u.port < 1 || u.port > 65535 {
			return bad("has a port that is no number from 1 to 65535")
		}
	}
	if u.query, err = url.ParseQuery(strings.ReplaceAll(m[8], ";", "%3B")); err != nil {
		return bad("has a query that can't be read")
	}
	return u, nil
}

// at is the host and the database, for a person.
func (u *sqlURI) at() string {
	host := u.host
	if host == "" {
		host = strings.Join(u.query["host"], ",")
	}
	if u.port != 0 {
		host += ":" + strconv.Itoa(u.port)
	}
	return host + "/" + u.database
}

// take gives a value of the query, and takes it out.
func (u *sqlURI) take(key string) string {
	v := u.query.Get(key)
	u.query.Del(key)
	return v
}

// plainName is what the name of a parameter looks like.
var plainName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_ ]*$`)

// showsParameters gives how a parameter is named to a person. Where one is a password or has
// no plain name, another may be the end of the password: none is named then.
func (u *sqlURI) showsParameters() func(key string) string {
	for key := range u.query {
		if isPassword(key) || key == "odbc_connect" || !plainName.MatchString(key) {
			return func(string) string { return "a parameter" }
		}
	}
	return func(key string) string { return "the parameter " + strconv.Quote(key) }
}

// isPassword tells whether a parameter is a password.
func isPassword(key string) bool {
	key = strings.ToLower(key)
	return strings.Contains(key, "password") || key == "passwd" || key == "pwd"
}

// left are the names of what is left of the query.
func (u *sqlURI) left() []string { return slices.Sorted(maps.Keys(u.query)) }

// openDatabase makes a store of the database at a URI. It is asked when it is needed.
func openDatabase(uri string, env rest.Env, log *slog.Logger) (database, error) {
	set, err := rest.ReadSettings(env)
	if err != nil {
		return nil, err
	}
	u, err := parseSQL(uri)
	if err != nil {
		return nil, err
	}
	at, shown := u.at(), u.showsParameters()
	var c driver.Connector
	var left []string
	talks := &postgres
	switch u.dialect {
	case "mysql":
		talks = &mySQL
		c, left, err = mySQLConnector(&u, env, set.Silence)
	case "mssql":
		talks = &sqlServerDialect
		c, left, err = msSQLConnector(&u)
	default:
		c, left, err = postgresConnector(&u)
	}
	if err != nil {
		return nil, err
	}
	for _, key := range left {
		if secures(key) {
			return nil, fmt.Errorf("the URI of the %s database %s has %s, which is not known here, and may be there to secure the connection: take it out, or use `mlflow server`", talks.kind, at, shown(key))
		}
	}
	if len(left) > 0 {
		for i, key := range left {
			left[i] = shown(key)
		}
		log.Warn("parameters of the database's URI are left out", "database", at, "parameters", left)
	}
	return openServer(c, at, talks, set.Offline), nil
}

// secures tells whether a parameter may be there to secure a connection.
func secures(key string) bool {
	key = strings.ToLower(key)
	return strings.HasPrefix(key, "ssl") || strings.HasPrefix(key, "tls") || strings.Contains(key, "auth") || strings.Contains(key, "encr") || strings.Contains(key, "cert")
}
