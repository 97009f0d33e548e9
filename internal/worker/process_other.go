//go:build !unix

package worker

import "os/exec"

// group does nothing: there are no process groups here.
func group(*exec.Cmd) {}

// terminate and kill end the command itself. One that has ended needs neither.
func terminate(cmd *exec.Cmd) { _ = cmd.Process.Kill() }
func kill(cmd *exec.Cmd)      { _ = cmd.Process.Kill() }
