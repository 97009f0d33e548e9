//go:build unix

package worker

import (
	"os/exec"
	"syscall"
)

// group is a command and all that it starts, so that all of them can be stopped: a process group of their own.
type group struct{ cmd *exec.Cmd }

// newGroup prepares a command that has not started yet.
func newGroup(cmd *exec.Cmd) *group {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return &group{cmd}
}

// started is called when the command has started.
func (g *group) started() error { return nil }

// terminate asks the group to end, kill ends it. A group that is gone needs neither.
func (g *group) terminate() { _ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGTERM) }
func (g *group) kill()      { _ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL) }

// close frees what the group took up; it ends nothing.
func (g *group) close() {}
