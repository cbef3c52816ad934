package disk

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"time"
)

// hash gives one name to a list of words.
func hash[T string | []byte](words ...T) Name {
	h := sha256.New()
	for _, w := range words {
		fmt.Fprintf(h, "%d:%s", len(w), w)
	}
	return Name(h.Sum(nil))
}

// sealHead is what a sealed file begins with: its kind, and a checksum of that
// and of the body.
func sealHead(kind string, body []byte) []byte {
	sum := hash([]byte(kind), body)
	return append([]byte("mlflowfs "+kind+"\n"), sum[:]...)
}

// writeSealed puts a sealed file in the place of what has its name. fresh is a
// name that nobody else writes to meanwhile.
func (d *Dir) writeSealed(name, fresh, kind string, body []byte) error {
	err := d.root.WriteFile(fresh, slices.Concat(sealHead(kind, body), body), 0o600)
	if err == nil {
		err = d.root.Rename(fresh, name)
	}
	if err != nil {
		d.root.Remove(fresh)
	}
	return err
}

// sealed is what a sealed file holds, and when it was written.
type sealed struct {
	body []byte
	at   time.Time
}

// readSealed reads a sealed file. The body is nil if there is none, or if it is
// damaged, of another kind, or larger than most.
func (d *Dir) readSealed(name, kind string, most int64) (s sealed, err error) {
	f, err := d.root.Open(name)
	if err != nil {
		return s, ignoreMissing(err)
	}
	defer f.Close()
	st, err := f.Stat()
	head := len(sealHead(kind, nil))
	if err != nil || st.Size() < int64(head) || st.Size() > most+int64(head) {
		return s, err
	}
	b := make([]byte, st.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return s, err
	}
	if bytes.Equal(b[:head], sealHead(kind, b[head:])) {
		s = sealed{b[head:], st.ModTime()}
	}
	return s, nil
}
