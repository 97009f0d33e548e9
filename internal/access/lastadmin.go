package access

import (
	"fmt"
	"time"
)

// ChangedKey is a key that was narrowed or ended.
type ChangedKey struct {
	Key
	Warning string `json:"warning" doc:"what follows from the change that nobody asked for; empty when nothing"`
}

// administers says whether somebody can administer the workspace with a key: an admin's personal key that works, is not restricted, and
// may manage keys and members.
func (r *reader) administers(row keyRow) (bool, error) {
	if row.kind != personal.String() {
		return false, nil
	}
	role, err := r.role(row.workspace, row.user)
	if err != nil || role != RoleAdmin {
		return false, err
	}
	has, err := r.rights(row)
	return has.why.passes() && !has.restricted && has.perms.has("keys:write") && has.perms.has("members:write"), err
}

// administered says whether anybody can administer a workspace with another key than one.
func (r *reader) administered(workspace, but string) (bool, error) {
	rows, err := readKeys(r.tx, sqlKeysOfAdmins, workspace)
	if err != nil {
		return false, fmt.Errorf("look for keys of admins: %w", err)
	}
	for _, row := range rows {
		if is, err := r.administers(row); row.id != but && (is || err != nil) {
			return is, err
		}
	}
	return false, nil
}

// lastAdmin is the warning that a key was the last with which anybody could administer its workspace, and how to get in again; "" when it
// was not, or still is. No change is refused for that: whoever has to end a key must be able to.
func (r *reader) lastAdmin(was, now keyRow) (string, error) {
	if is, err := r.administers(was); err != nil || !is {
		return "", err
	}
	still, err := r.administers(now)
	if err != nil || still && !later(was.expires, now.expires) {
		return "", err
	}
	if others, err := r.administered(now.workspace, now.id); err != nil || others {
		return "", err
	}
	when := "Now"
	if still {
		when = "After " + timeOfDay(time.UnixMicro(now.expires).UTC(), r.a.Now().UTC())
	}
	return r.nobodyAdministers(when, now.workspace)
}

func (r *reader) nobodyAdministers(when, workspace string) (string, error) {
	w, err := readWorkspace(r.tx, workspace)
	return fmt.Sprintf("%s no admin of this workspace has a key to administer it with. To get in again, on the machine of the server: unstuck auth login --local --workspace %s", when, w.slug), err
}
