package pgtest

import "os/exec"

// apart refuses: the script that starts the server is one for Unix.
func apart(*exec.Cmd, string) error { return errMissing }
