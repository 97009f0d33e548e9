package worker

import (
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// group is a command and all that it starts, so that all of them can be stopped: a job object.
type group struct {
	cmd *exec.Cmd
	job windows.Handle
}

// newGroup prepares a command that has not started yet.
func newGroup(cmd *exec.Cmd) *group {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP} // it alone gets the Ctrl-Break of terminate
	return &group{cmd: cmd}
}

// started puts the command into its job as soon as it has started; what it starts from then on is in there, too.
func (g *group) started() (err error) {
	if g.job, err = windows.CreateJobObject(nil, nil); err != nil {
		return fmt.Errorf("make a job for the handler: %w", err)
	}
	h, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE|windows.SYNCHRONIZE, false, uint32(g.cmd.Process.Pid))
	if err != nil {
		return fmt.Errorf("open the handler's process: %w", err)
	}
	defer func() { _ = windows.CloseHandle(h) }()
	err = windows.AssignProcessToJobObject(g.job, h)
	if ended, _ := windows.WaitForSingleObject(h, 0); err == nil || ended == windows.WAIT_OBJECT_0 { // one that has ended needs no job
		return nil
	}
	return fmt.Errorf("put the handler into its job: %w", err)
}

// terminate asks the group to end by a Ctrl-Break, which is what Windows has for SIGTERM; without a console that could carry it, there
// is nothing to ask with. kill ends all of it. A group that is gone needs neither.
func (g *group) terminate() {
	if windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(g.cmd.Process.Pid)) != nil {
		g.kill()
	}
}

func (g *group) kill() { _ = windows.TerminateJobObject(g.job, 1) }

// close frees what the group took up; it ends nothing.
func (g *group) close() { _ = windows.CloseHandle(g.job) }
