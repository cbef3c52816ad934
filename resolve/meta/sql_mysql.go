package meta

import (
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

var mySQL = dialect{
	kind: "MySQL", quote: "`",
	otherName: "give the URI a host that the certificate names, or ?ssl_check_hostname=false, which has the certificate checked and not its name, where MLFLOW_MYSQL_SSL_CA or ssl_ca is set",
	columns:   "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name IN (" + sqlTables + ")",
	hides:     true,
	begin:     &sql.TxOptions{ReadOnly: true}, // its isolation is REPEATABLE READ, unless the server is set up otherwise
	code: func(err error) string {
		if e := (*mysql.MySQLError)(nil); errors.As(err, &e) {
			return strconv.Itoa(int(e.Number)) + "."
		}
		return ""
	},
	// https://mariadb.com/kb/en/mariadb-error-code-reference/
	troubles: map[string]trouble{
		"1146.": noTable, "1054.": noTable,
		"1044.": denied, "1045.": denied, "1142.": denied, "1143.": denied, "1227.": denied, "1698.": denied,
		"1040.": unreachable, "1053.": unreachable, "1077.": unreachable, "1129.": unreachable, "1130.": denied,
		"1158.": unreachable, "1159.": unreachable, "1160.": unreachable, "1161.": unreachable, "1203.": unreachable, "1205.": unreachable,
		"1213.": unreachable, "1226.": unreachable, "1412.": unreachable, "1927.": unreachable,
	},
}

// mySQLConnector makes connections by what the URI says, as pymysql and mysqlclient read
// it, and what MLflow's client and the latter take from the environment.
func mySQLConnector(u *sqlURI, env rest.Env, silence time.Duration) (driver.Connector, []string, error) {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName = u.user, u.password, u.database
	if c.Passwd == "" {
		c.Passwd = env("MYSQL_PWD")
	}
	host, port := u.host, u.port
	if host == "" {
		host = "localhost"
	}
	if port == 0 {
		port = 3306
	}
	c.Net, c.Addr = "tcp", net.JoinHostPort(host, strconv.Itoa(port))
	if socket := u.take("unix_socket"); socket != "" {
		c.Net, c.Addr = "unix", socket
	}
	var err error
	if c.TLS, err = mySQLTLS(u, env, host); err != nil {
		return nil, nil, fmt.Errorf("the MySQL database %s: %w", u.at(), err)
	}
	c.Timeout = 5 * time.Second
	c.ReadTimeout, c.WriteTimeout = silence, silence // the end of a transaction has no context in this driver
	c.InterpolateParams = true                       // one message for each statement
	c.Logger = mysqlSilence{}                        // what it has to say is in the errors
	dialer := sqlDialer()
	c.DialFunc = dialer.DialContext
	connector, err := mysql.NewConnector(c)
	return connector, u.left(), err
}

// mySQLTLS is what the URI and MLFLOW_MYSQL_SSL_* say of TLS; nil where they say nothing.
// With a CA the server's certificate is checked, and whose it is, as pymysql checks it where
// the URI names the CA; for MLFLOW_MYSQL_SSL_CA it checks neither.
func mySQLTLS(u *sqlURI, env rest.Env, host string) (*tls.Config, error) {
	value := func(key, variable string) string {
		if v := u.take(key); v != "" {
			return v
		}
		return env(variable)
	}
	ca, cert, key := value("ssl_ca", "MLFLOW_MYSQL_SSL_CA"), value("ssl_cert", "MLFLOW_MYSQL_SSL_CERT"), value("ssl_key", "MLFLOW_MYSQL_SSL_KEY")
	checkName := u.take("ssl_check_hostname")
	if ca == "" && cert == "" && key == "" && checkName == "" {
		return nil, nil
	}
	conf := &tls.Config{ServerName: host, InsecureSkipVerify: ca == ""}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("MLFLOW_MYSQL_SSL_CA (ssl_ca) can't be read: %v", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("MLFLOW_MYSQL_SSL_CA (ssl_ca), %s, holds no certificate", ca)
		}
	}
	if cert != "" {
		if key == "" {
			key = cert
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("MLFLOW_MYSQL_SSL_CERT and MLFLOW_MYSQL_SSL_KEY (ssl_cert, ssl_key) can't be used: %v", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	switch strings.ToLower(checkName) {
	case "", "true", "t", "yes", "y", "on", "1":
	case "false", "f", "no", "n", "off", "0":
		if ca != "" {
			verifyWithoutName(conf)
		}
	default:
		return nil, fmt.Errorf("ssl_check_hostname is %q: it must be true or false", checkName)
	}
	return conf, nil
}

// verifyWithoutName has a certificate checked, and not whose it is.
func verifyWithoutName(conf *tls.Config) {
	conf.InsecureSkipVerify = true
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		opt := x509.VerifyOptions{Roots: conf.RootCAs, Intermediates: x509.NewCertPool()}
		for _, c := range s.PeerCertificates[1:] {
			opt.Intermediates.AddCert(c)
		}
		_, err := s.PeerCertificates[0].Verify(opt)
		return err
	}
}

// mysqlSilence is the driver's log.
type mysqlSilence struct{}

// Print prints nothing.
func (mysqlSilence) Print(...any) {}
