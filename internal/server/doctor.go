package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/disk"
	"unstuck/internal/op"
)

// Finding is one thing that doctor looked at.
type Finding struct {
	What string
	Err  error  // nil: fine
	Mend string // what to do about it, a command where there is one
	Note bool   // nothing is wrong, but What should be known

	Beside bool // it is about others, such as an outside watch: the server does its work all the same
}

// Look says how doctor looks.
type Look struct {
	Now   time.Time // of this machine
	Quick bool      // without what takes longer the more a server holds: its keys and its audit log
}

// leastRoom is the room on a disk below which doctor warns, in bytes: what is written in hours, not in minutes.
const leastRoom = 256 << 20

// mostAhead is how far what a database holds may be ahead of the clock of the machine.
const mostAhead = time.Minute

// Doctor looks at everything that a server needs on its machine, beside a running one or without one. It changes nothing. What only the
// running server knows, that one says ([Server.Checks]).
func Doctor(ctx context.Context, s Settings, look Look) []Finding {
	out := findings{}
	out.add("where it listens: "+s.Listen, s.checkListen(), "choose one of the ways above")
	out.add(s.callbacksAllowed(), s.checkCallbacks(), "name the networks of your callbacks only: UNSTUCK_ALLOW_CALLBACKS=172.18.0.0/16")
	if !out.add("data folder "+s.Data, checkFolder(s.Data), mendFolder(s.Data)) {
		return out
	}
	out.add("room on the disk", s.checkRoom(), "free space on the disk of "+s.Data+"; the server makes its reserve whole again")
	if !look.Quick {
		out = append(out, s.checkStored(ctx, look.Now)...)
	}
	return out
}

type findings []Finding

// add notes a finding and says whether all is well with it.
func (f *findings) add(what string, err error, mend string) bool {
	*f = append(*f, Finding{What: what, Err: err, Mend: mend})
	return err == nil
}

// checkStored opens the database, which must fit the server secret, and looks at its audit log and the times in it.
func (s Settings) checkStored(ctx context.Context, now time.Time) []Finding {
	out := findings{}
	d, a, err := s.openAccess(ctx, db.Options{DSN: s.DSN(), ReadOnly: true}, true)
	if !out.add("database and server secret", err, "see the sentence above; unstuck restore brings back a backup") {
		return out
	}
	chains, err := a.CheckAudit(ctx, "")
	out.add("audit log", errors.Join(err, broken(chains)), "compare with a backup; the rows before that place are whole")
	out.add("clock", checkClock(ctx, d, now), "set the clock of this machine, and keep it right: timedatectl set-ntp true")
	if err := d.Close(); err != nil {
		out.add("closing the database", err, "look at the disk")
	}
	return out
}

func broken(chains []access.Chain) (err error) {
	for _, c := range chains {
		if !c.OK {
			err = errors.Join(err, fmt.Errorf("workspace %s: %s", c.Workspace, c.Problem))
		}
	}
	return err
}

// checkClock holds the clock against what was written last.
func checkClock(ctx context.Context, d *db.DB, now time.Time) error {
	var audit, fired op.Time
	err := d.View(ctx, func(tx *db.Tx) error {
		return tx.Row(`SELECT COALESCE((SELECT max(at) FROM audit), 0), COALESCE((SELECT max(created_at) FROM executions), 0)`).Scan(&audit, &fired)
	})
	if err != nil {
		return fmt.Errorf("read what was written last: %w", err)
	}
	if ahead := max(audit, fired).Std().Sub(now); ahead > mostAhead {
		return fmt.Errorf("the database was written %v after what the clock says now (%s)", ahead.Round(time.Second), now.UTC().Format(time.DateTime+" UTC"))
	}
	return nil
}

// checkRoom says when the disk has little room, or was too full for the whole reserve, which a server makes at its start.
func (s Settings) checkRoom() error {
	if free, err := disk.Room(s.Data); err != nil {
		return fmt.Errorf("ask how much is free: %w", err)
	} else if free < leastRoom {
		return fmt.Errorf("only %d MiB are free", free>>20)
	}
	st, err := os.Stat(db.ReservePath(s.DSN()))
	switch {
	case errors.Is(err, os.ErrNotExist): // the database is PostgreSQL, or no server has run here yet
		return nil
	case err != nil:
		return fmt.Errorf("look for the reserve for revocations: %w", err)
	case st.Size() < reserve:
		return fmt.Errorf("the disk is or was full: %d of %d KiB are left of the reserve for revocations", st.Size()>>10, reserve>>10)
	}
	return nil
}

func mendFolder(path string) string {
	switch st, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		return "unstuck serve"
	case err == nil && !st.IsDir(): // nobody's file gets other rights because of a mistyped path
		return "choose a folder with --data, or UNSTUCK_DATA"
	}
	return disk.MendPrivate(path)
}

func checkFolder(path string) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("it is not there; no server has run here yet")
	case err != nil:
		return err
	case !st.IsDir():
		return errors.New("it is no folder")
	}
	if err := disk.Private(path); err != nil {
		return err
	}
	secret := filepath.Join(path, "secret")
	if err := disk.Private(secret); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the server secret in it: %w; %s", err, disk.MendPrivate(secret))
	}
	return nil
}

// callbacksAllowed says in words where callbacks may lead.
func (s Settings) callbacksAllowed() string {
	switch {
	case s.Dev:
		return "callbacks: public addresses, this machine and private networks (--dev)"
	case s.AllowCallbacks != "":
		return "callbacks: public addresses and " + s.AllowCallbacks
	}
	return "callbacks: public addresses"
}

// checkCallbacks finds a setting that allows whole address families: then a cue reaches all that this machine can reach.
func (s Settings) checkCallbacks() error {
	for _, network := range s.Callbacks().Allow {
		if network.Bits() == 0 {
			return fmt.Errorf("%v is every address: whoever may make cues can have this machine call whatever it reaches, other machines of your network included", network)
		}
		if network.Contains(netip.AddrFrom4([4]byte{169, 254, 169, 254})) {
			return fmt.Errorf("%v holds 169.254.169.254, where a cloud gives its machines their credentials", network)
		}
	}
	return nil
}

// Checked is a finding as the local socket tells it.
type Checked struct {
	What  string `json:"what"`
	Wrong string `json:"wrong,omitempty" doc:"what is wrong; empty when nothing is"`
	Mend  string `json:"mend,omitempty"`

	Beside bool `json:"beside,omitempty" doc:"the server does its work all the same"`
}

// Checks is what only a running server knows of itself, for doctor. A new check is one more line here.
func (s *Server) Checks(ctx context.Context) []Finding {
	out := findings{}
	out.add(fmt.Sprintf("a server runs on the data in %s, unstuck %s", s.Data, Version), s.database(ctx), "look at its log, and at the room on its disk")
	out.add("scheduler", s.checkScheduler(ctx), "look at the server's log, and start it again; nothing is lost")
	if s.HeartbeatURL != "" {
		out.add("outside watch", s.checkHeart(), "look at UNSTUCK_HEARTBEAT_URL, and whether this machine reaches it")
		out[len(out)-1].Beside = true
	}
	return out
}

func (s *Server) checkScheduler(ctx context.Context) error {
	if services, _ := s.services(ctx); services.Scheduler != "ok" { // the error is that of the database
		return fmt.Errorf("it has not looked for due work for %v", staleAfter)
	}
	return nil
}

func (s *Server) checkHeart() error {
	s.heart.mu.Lock()
	defer s.heart.mu.Unlock()
	return s.heart.err
}

// checks tells them over the local socket.
func (s *Server) checks(ctx context.Context) []Checked {
	out := []Checked{}
	for _, f := range s.Checks(ctx) {
		c := Checked{What: f.What, Beside: f.Beside}
		if f.Err != nil {
			c.Wrong, c.Mend = f.Err.Error(), f.Mend
		}
		out = append(out, c)
	}
	return out
}
