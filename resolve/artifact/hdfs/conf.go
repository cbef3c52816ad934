package hdfs

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/colinmarc/hdfs/v2"
	"github.com/colinmarc/hdfs/v2/hadoopconf"
	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/credentials"

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
func (d Driver) kerberos(opt *hdfs.ClientOptions) error {
	if opt.KerberosClient == nil {
		return nil
	}
	none := func(why string) error {
		return artifact.NoCredentials("Hadoop's configuration wants Kerberos, and " + why)
	}
	file := cmp.Or(d.Env("MLFLOW_KERBEROS_TICKET_CACHE"), d.Env("KRB5CCNAME"), fmt.Sprintf("/tmp/krb5cc_%d", os.Getuid()))
	if kind, behind, ok := strings.Cut(file, ":"); ok && !strings.ContainsRune(kind, '/') {
		if kind != "FILE" {
			return none(fmt.Sprintf("the ticket cache of the kind %s is none that is read here: name a file in MLFLOW_KERBEROS_TICKET_CACHE (`kinit -c FILE`)", kind))
		}
		file = behind
	}
	tickets, err := credentials.LoadCCache(file)
	if err != nil {
		return none(fmt.Sprintf("there is no ticket cache at %s: run `kinit`, or name the file in MLFLOW_KERBEROS_TICKET_CACHE", file))
	}
	conf, err := config.Load(cmp.Or(d.Env("KRB5_CONFIG"), "/etc/krb5.conf"))
	if err != nil {
		return none(fmt.Sprintf("the configuration of Kerberos (KRB5_CONFIG, /etc/krb5.conf) can't be read: %v", err))
	}
	if opt.KerberosClient, err = client.NewFromCCache(tickets, conf); err != nil {
		return none(fmt.Sprintf("the ticket in %s is of no use: %v: run `kinit`", file, err))
	}
	if opt.KerberosServicePrincipleName == "" {
		return none("hdfs-site.xml has no dfs.namenode.kerberos.principal")
	}
	return nil
}
