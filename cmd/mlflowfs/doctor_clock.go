package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// How far a clock may be off: signed URLs are good for minutes, and S3, GCS and Azure
// refuse what is signed by a clock that is a quarter of an hour off.
const (
	clockSlack = 30 * time.Second
	clockMost  = 15 * time.Minute
)

// checkClocks compares this machine's clock with those of the servers and stores that
// were asked.
func checkClocks(clocks []*rest.Clocks) (out []finding) {
	ahead := map[string]time.Duration{}
	for _, c := range clocks {
		maps.Copy(ahead, c.Ahead())
	}
	var same []string
	for _, host := range slices.Sorted(maps.Keys(ahead)) {
		off := ahead[host]
		if off.Abs() <= clockSlack {
			same = append(same, host)
			continue
		}
		side := "ahead of"
		if off < 0 {
			side = "behind"
		}
		x := finding{"clock", lesser, fmt.Sprintf("this machine's is %v %s that of %s", off.Abs(), side, host), "set the one that is wrong by NTP: a signed URL is good for minutes"}
		if off.Abs() >= clockMost {
			x.words += ", and object stores refuse what is signed by one that is 15 minutes off"
		}
		out = append(out, x)
	}
	if len(same) > 0 {
		out = append(out, finding{"clock", well, "is that of " + strings.Join(same, ", "), ""})
	}
	return out
}
