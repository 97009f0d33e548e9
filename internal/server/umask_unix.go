//go:build unix

package server

import "syscall"

// private makes every file that this process makes readable by its owner only: also those that SQLite keeps beside the database,
// whose locks anybody could hold who can open them.
func private() { syscall.Umask(0o077) }
