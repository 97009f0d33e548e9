package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"unstuck/internal/disk"
)

// A worker proves with a lease token that it still holds what it claimed. So that nobody has to copy tokens by hand, the command
// line keeps those of its own claims in ~/.unstuck/leases until they are reported. A token that is not there is simply not sent.

// lease is one claim of this user.
type lease struct {
	Token string    `json:"token"`
	Until time.Time `json:"until"`
}

// forgetAfter is how long after its end a lease is kept: its report may still count when nobody else took the work.
const forgetAfter = 7 * 24 * time.Hour

func (d *door) leasesPath() string { return d.home("leases") }

// readLeases reads the leases of this user; what cannot be read counts as none.
func (d *door) readLeases() map[string]lease {
	out := map[string]lease{}
	b, err := os.ReadFile(d.leasesPath())
	if err != nil || json.Unmarshal(b, &out) != nil {
		return map[string]lease{}
	}
	return out
}

// keepLeases adds leases to those that are kept, and forgets old ones. A lease that cannot be kept only means that its token is
// not sent with the report.
func (d *door) keepLeases(change func(map[string]lease)) {
	if d.Home == "" {
		return
	}
	all := d.readLeases()
	before := len(all)
	change(all)
	for id, l := range all {
		if d.Now().Sub(l.Until) > forgetAfter {
			delete(all, id)
		}
	}
	if before == 0 && len(all) == 0 {
		return
	}
	b, err := json.Marshal(all)
	if err == nil && disk.MakePrivate(filepath.Dir(d.leasesPath())) == nil {
		_ = writeWhole(d.leasesPath(), b)
	}
}

// writeWhole replaces a file in one step: a reader sees the old one or the new one. Only its owner can read it.
func writeWhole(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)) // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// addLeaseToken sends the token of a claim of this user with a report or a heartbeat, unless another was given.
func (r *run) addLeaseToken() {
	id, _ := r.in["id"].(string)
	if l, ok := r.readLeases()[id]; ok && r.in["lease_token"] == nil {
		r.in["lease_token"] = l.Token
	}
}
