//go:build !linux

package disk

import (
	"os"
	"time"
)

func willNeed(*os.File, int64, int64) {}

func readNow(*os.File, []byte, int64) int { return 0 }

func writeAll(f *os.File, pieces [][]byte, off int64) error {
	for _, p := range pieces {
		if _, err := f.WriteAt(p, off); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

func (d *Dir) openAt(name string) (*os.File, error) { return d.root.OpenFile(name, os.O_RDWR, 0) }

func setTime(f *os.File, at time.Time) error { return os.Chtimes(f.Name(), at, at) }
