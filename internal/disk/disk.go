// Package disk is what every operating system does in its own way with files: who may read one, whether its name is durable, and
// how much room there is.
package disk

import (
	"fmt"
	"os"
)

// OthersError says that others than its owner may read a file or folder.
type OthersError struct{ Who string }

func (e *OthersError) Error() string { return fmt.Sprintf("others may read it (%s)", e.Who) }

// MakePrivate makes a folder, and those above it, that only its owner can read. One that is there stays as it is.
func MakePrivate(path string) error {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return ownerOnly(path)
}
