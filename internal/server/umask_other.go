//go:build !unix

package server

// private has nothing to do where files take their rights from their folder.
func private() {}
