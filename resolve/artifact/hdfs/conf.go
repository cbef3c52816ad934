package hdfs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/colinmarc/hdfs/v2"
	"github.com/colinmarc/hdfs/v2/hadoopconf"
	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/types"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// readConf reads Hadoop's configuration: core-site.xml and hdfs-site.xml of
// HADOOP_CONF_DIR, else of HADOOP_HOME. None is an empty one.
func readConf(env rest.Env) (hadoopconf.HadoopConf, error) {
	dirs := []string{env("HADOOP_CONF_DIR")}
	if home := env("HADOOP_HOME"); home != "" {
		dirs = append(dirs, filepath.Join(home, "etc", "hadoop"), filepath.Join(home, "conf"))
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		conf, err := hadoopconf.Load(dir)
		if err != nil {
			return nil, fmt.Errorf("the configuration of Hadoop in %s can't be read: %w", dir, err)
		}
		if conf != nil {
			return conf, nil
		}
	}
	return hadoopconf.HadoopConf{}, nil
}

// kerberos has a client known by the user's ticket, where the configuration wants one
// (hadoop.security.authentication).
func (d Driver) kerberos(opt *hdfs.ClientOptions) (err error) {
	if opt.KerberosClient == nil {
		return nil
	}
	if opt.KerberosClient, err = d.ticket(); err != nil {
		return err
	}
	if opt.KerberosServicePrincipleName == "" {
		return wantsKerberos("hdfs-site.xml has no dfs.namenode.kerberos.principal")
	}
	return nil
}

func wantsKerberos(why string, args ...any) error {
	return artifact.NoCredentials("Hadoop's configuration wants Kerberos, and " + fmt.Sprintf(why, args...))
}

// ticket is a client of Kerberos with the ticket that the user has now: who runs kinit
// again is known by the new one with the next connection.
func (d Driver) ticket() (*client.Client, error) {
	file := cmp.Or(d.Env("MLFLOW_KERBEROS_TICKET_CACHE"), d.Env("KRB5CCNAME"), fmt.Sprintf("/tmp/krb5cc_%d", os.Getuid()))
	if kind, behind, ok := strings.Cut(file, ":"); ok && !strings.ContainsRune(kind, '/') {
		if kind != "FILE" {
			return nil, wantsKerberos("the ticket cache of the kind %s is none that is read here: name a file in MLFLOW_KERBEROS_TICKET_CACHE (`kinit -c FILE`)", kind)
		}
		file = behind
	}
	tickets, err := credentials.LoadCCache(file)
	if err != nil {
		return nil, wantsKerberos("there is no ticket cache at %s: run `kinit`, or name the file in MLFLOW_KERBEROS_TICKET_CACHE", file)
	}
	conf, err := config.Load(cmp.Or(d.Env("KRB5_CONFIG"), "/etc/krb5.conf"))
	if partly := (config.UnsupportedDirective{}); err != nil && !errors.As(err, &partly) { // what the library does not know it passes over
		return nil, wantsKerberos("the configuration of Kerberos (KRB5_CONFIG, /etc/krb5.conf) can't be read: %v", err)
	}
	realm := tickets.GetClientRealm()
	if tgt, ok := tickets.GetEntry(types.NewPrincipalName(nametype.KRB_NT_SRV_INST, "krbtgt/"+realm)); ok {
		if !time.Now().Before(tgt.EndTime) {
			return nil, wantsKerberos("the ticket in %s is over since %s: run `kinit`", file, tgt.EndTime.Local().Format(time.DateTime))
		}
		// The library wants a new ticket for the last sixth of the time of one, which it
		// can't have by itself. The ticket is good until it ends.
		tgt.AuthTime = tgt.EndTime
	}
	c, err := client.NewFromCCache(tickets, conf)
	if err != nil {
		return nil, wantsKerberos("the ticket in %s is of no use: %v: run `kinit`", file, err)
	}
	return c, nil
}
