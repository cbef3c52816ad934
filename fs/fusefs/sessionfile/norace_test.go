//go:build linux && !race

package sessionfile

const raceDetector = false
