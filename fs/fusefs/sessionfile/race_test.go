//go:build linux && race

package sessionfile

const raceDetector = true // which makes all of this take ten times as long
