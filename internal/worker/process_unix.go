//go:build unix

package worker

import (
	"os/exec"
	"syscall"
)

// group puts a command and all that it starts into a process group of their own, so that all of them can be stopped.
func group(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// terminate asks the group of a command to end, kill ends it. A group that is gone needs neither.
func terminate(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
func kill(cmd *exec.Cmd)      { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
