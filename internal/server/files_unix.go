//go:build unix

package server

import (
	"math"
	"syscall"
)

// openFiles is how many files and connections this process may have open; 0 when it is not known. Go raises the soft limit to the
// hard one by itself.
func openFiles() int64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int64(min(uint64(limit.Cur), math.MaxInt32)) //nolint:unconvert // it is signed on FreeBSD
}
