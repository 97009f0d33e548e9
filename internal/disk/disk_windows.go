package disk

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// NewFilesPrivate has nothing to do: files take their rights from their folder, which [MakePrivate] made.
func NewFilesPrivate() {}

// reading are the rights by which somebody gets at the content of a file, or at who has rights.
const reading = windows.FILE_READ_DATA | windows.GENERIC_READ | windows.GENERIC_ALL | windows.WRITE_DAC | windows.WRITE_OWNER

// Private answers nil when only the owner may read a file or folder, and an [*OthersError] when others may. Whoever administers the
// machine, and the system itself, can read everything anyway.
func Private(path string) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("ask who may read it: %w", err)
	}
	trusted, err := trustedWith(sd)
	if err != nil {
		return err
	}
	list, _, err := sd.DACL()
	if err != nil {
		return fmt.Errorf("ask who may read it: %w", err)
	}
	if list == nil {
		return &OthersError{"everybody"}
	}
	for i := range uint32(list.AceCount) {
		var entry *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(list, i, &entry); err != nil {
			return fmt.Errorf("ask who may read it: %w", err)
		}
		if entry.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE || entry.Mask&reading == 0 {
			continue
		}
		if who := (*windows.SID)(unsafe.Pointer(&entry.SidStart)); !isOneOf(who, trusted) {
			return &OthersError{nameOf(who)}
		}
	}
	return nil
}

// trustedWith lists who may read what somebody owns: the owner, whoever runs this process, the system and its administrators.
func trustedWith(sd *windows.SECURITY_DESCRIPTOR) ([]*windows.SID, error) {
	owner, _, err := sd.Owner()
	if err != nil {
		return nil, fmt.Errorf("ask whose it is: %w", err)
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("ask who runs this: %w", err)
	}
	trusted := []*windows.SID{owner, user.User.Sid}
	for _, known := range []windows.WELL_KNOWN_SID_TYPE{
		windows.WinLocalSystemSid, windows.WinBuiltinAdministratorsSid, windows.WinCreatorOwnerSid, windows.WinCreatorOwnerRightsSid,
	} {
		sid, err := windows.CreateWellKnownSid(known)
		if err != nil {
			return nil, fmt.Errorf("ask who administers this machine: %w", err)
		}
		trusted = append(trusted, sid)
	}
	return trusted, nil
}

func isOneOf(who *windows.SID, list []*windows.SID) bool {
	for _, sid := range list {
		if sid != nil && who.Equals(sid) {
			return true
		}
	}
	return false
}

func nameOf(who *windows.SID) string {
	if name, domain, _, err := who.LookupAccount(""); err == nil {
		return domain + `\` + name
	}
	return who.String()
}

// MendPrivate is the command that takes a file or folder away from others.
func MendPrivate(path string) string {
	rights := "F"
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		rights = "(OI)(CI)F"
	}
	return fmt.Sprintf(`icacls "%s" /inheritance:r /grant:r "%%USERNAME%%:%s"`, path, rights)
}

// ownerOnly gives a new folder, and all that will be in it, to whoever runs this process, the system and its administrators alone.
func ownerOnly(path string) error {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return fmt.Errorf("ask who runs this: %w", err)
	}
	sd, err := windows.SecurityDescriptorFromString("D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;" + user.User.Sid.String() + ")")
	if err != nil {
		return fmt.Errorf("say who may read %s: %w", path, err)
	}
	list, _, err := sd.DACL()
	if err == nil {
		err = windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, list, nil)
	}
	if err != nil {
		return fmt.Errorf("keep %s from others: %w", path, err)
	}
	return nil
}

// SyncNames has nothing to do: NTFS writes names to its journal, in order, and Windows syncs no folder that was opened to be read.
func SyncNames(string) error { return nil }

// IsFull says that something could not be written because the disk is full, or what its user may fill of it.
func IsFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) || errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// Room is how many bytes of the disk under a path this process may still fill.
func Room(path string) (uint64, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, &os.PathError{Op: "ask for room", Path: path, Err: err}
	}
	return free, nil
}
