//go:build unix

package disk_test

import "os"

func openUp(path string) error { return os.Chmod(path, 0o604) }
