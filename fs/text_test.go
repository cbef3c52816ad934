package fs

import (
	"context"
	"strings"
	"testing"
)

// TestTextsAreToldApartWithoutACopy fails when what tells a text's content from
// another one, which an inode keeps, is as long as the text; or when two texts of
// one size are taken for one.
func TestTextsAreToldApartWithoutACopy(t *testing.T) {
	t.Parallel()
	identity := func(s string) string {
		h, err := sized(s).File.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return h.(Identified).Identity()
	}
	long := strings.Repeat("x", 1<<20)
	if n := len(identity(long)); n > 100 {
		t.Errorf("the identity of a text of %d bytes has %d", len(long), n)
	}
	if identity(long) != identity(strings.Clone(long)) {
		t.Error("one text has two identities")
	}
	if identity("a"+long) == identity("b"+long) {
		t.Error("two texts have one identity")
	}
}
