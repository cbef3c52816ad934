package meta

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

var postgres = dialect{
	kind: "PostgreSQL", mark: "$", quote: `"`, nullsLast: " NULLS LAST", lateral: true,
	otherName: "give the URI a host that the certificate names, or sslmode=verify-ca",
	// information_schema shows only what the user may read, and a table that he may not read
	// is none that is not there.
	columns: "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE pg_table_is_visible(c.oid) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')" +
		" AND a.attnum > 0 AND NOT a.attisdropped AND c.relname IN (" + sqlTables + ")",
	begin: &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true},
	code: func(err error) string {
		if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
			return e.Code
		}
		return ""
	},
	// https://www.postgresql.org/docs/current/errcodes-appendix.html
	troubles: map[string]trouble{
		"42P01": noTable, "42703": noTable,
		"28": denied, "42501": denied,
		"08": unreachable, "53": unreachable, "57": unreachable,
		"57014": refused,     // it takes longer than statement_timeout allows
		"40":    unreachable, // what a standby had to give up for what it replays is asked again
	},
}

// libpqKeys are the parameters of libpq's that pgx knows.
var libpqKeys = map[string]bool{
	"sslmode": true, "sslcert": true, "sslkey": true, "sslcertmode": true, "sslrootcert": true, "sslpassword": true, "sslsni": true, "sslnegotiation": true,
	"passfile": true, "service": true, "servicefile": true, "target_session_attrs": true, "krbspn": true, "krbsrvname": true,
	"channel_binding": true, "require_auth": true, "min_protocol_version": true, "max_protocol_version": true, "options": true, "application_name": true,
}

// postgresConnector makes connections by what the URI says, and what libpq takes from the
// environment: PGPASSWORD, PGPASSFILE, PGSSLMODE and the like.
func postgresConnector(u *sqlURI) (driver.Connector, []string, error) {
	at := u.at()
	settings := map[string]string{"dbname": u.database, "user": u.user}
	settings["host"], settings["port"] = u.hosts()
	for _, key := range []string{"user", "dbname"} {
		if v := u.take(key); v != "" {
			settings[key] = v
		}
	}
	password := u.password
	if v := u.take("password"); v != "" {
		password = v
	}
	for key := range libpqKeys {
		if v := u.take(key); v != "" {
			settings[key] = v
		}
	}
	var conn strings.Builder
	for key, v := range settings {
		if v != "" {
			fmt.Fprintf(&conn, "%s='%s' ", key, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v))
		}
	}
	config := func() (*pgx.ConnConfig, error) {
		c, err := pgx.ParseConfig(conn.String())
		if err == nil && password != "" {
			c.Password = password
		}
		return c, err
	}
	c, err := config()
	if err != nil {
		return nil, nil, fmt.Errorf("the PostgreSQL database %s: %w", at, withoutSettings(err))
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeExec // nothing is prepared: see sqlServer
	c.DialFunc = sqlDialer().DialContext
	return stdlib.GetConnector(*c, stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
		if now, err := config(); err == nil { // a file of passwords may have a newer one by then
			c.Password = now.Password
		}
		return nil
	})), u.left(), nil
}

// withoutSettings is err without the settings that can't be used: the driver's error has
// them all, of which it finds the secrets by what they look like.
func withoutSettings(err error) error {
	var bad *pgconn.ParseConfigError
	if !errors.As(err, &bad) {
		return errors.New("its settings can't be used")
	}
	if why := bad.Unwrap(); why != nil {
		return fmt.Errorf("its settings can't be used: %w", why)
	}
	words := bad.Error() // "cannot parse `settings`: why"
	return errors.New("its settings can't be used: " + words[strings.LastIndex(words, "`: ")+len("`: "):])
}

// hosts gives the hosts and the ports, as libpq takes lists of them: of several, the URI has
// host=a:5432&host=b:5432.
func (u *sqlURI) hosts() (string, string) {
	var hosts, ports []string
	for _, h := range strings.Split(strings.Join(append([]string{u.host}, u.query["host"]...), ","), ",") {
		if h == "" {
			continue
		}
		host, port := h, ""
		if i := strings.LastIndexByte(h, ':'); i >= 0 && strings.Count(h, ":") == 1 && h[0] != '/' {
			host, port = h[:i], h[i+1:]
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	u.query.Del("host")
	port := u.take("port")
	switch {
	case u.port != 0:
		port = strconv.Itoa(u.port)
	case port == "" && strings.Join(ports, "") != "":
		port = strings.Join(ports, ",")
	}
	return strings.Join(hosts, ","), port
}
