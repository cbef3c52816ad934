package meta

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// lastMetric picks the point that MLflow calls the latest.
func lastMetric(key, lines string) (jsonMetric, bool) {
	points := metricPoints(key, lines)
	if len(points) == 0 {
		return jsonMetric{}, false
	}
	return points[len(points)-1], true
}

// metricPoints reads the lines "timestamp value [step]" of a metric file, and
// sorts them as MLflow does: by step, timestamp, value. A line that is none is
// left out.
func metricPoints(key, lines string) []jsonMetric {
	type point struct {
		step, timestamp int64
		value           float64
	}
	var points []point
	for l := range strings.Lines(lines) {
		f := strings.Fields(l)
		if len(f) < 2 {
			continue
		}
		var p point
		var err1, err2, err3 error
		p.timestamp, err1 = strconv.ParseInt(f[0], 10, 64)
		p.value, err2 = strconv.ParseFloat(f[1], 64)
		if len(f) > 2 {
			p.step, err3 = strconv.ParseInt(f[2], 10, 64)
		}
		if errors.Join(err1, err2, err3) == nil {
			points = append(points, p)
		}
	}
	slices.SortStableFunc(points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.step, b.step), cmp.Compare(a.timestamp, b.timestamp), cmp.Compare(a.value, b.value))
	})
	out := make([]jsonMetric, len(points))
	for i, p := range points {
		out[i] = jsonMetric{Key: key, Value: jsonNumber(p.value, false), Timestamp: p.timestamp, Step: p.step}
	}
	return out
}
