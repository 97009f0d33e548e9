package server_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/db/powercut"
	"unstuck/internal/server"
	"unstuck/internal/testkit"
)

type obj = map[string]any

// full is a server whose disk becomes full.
type full struct {
	*testkit.Server
	t    *testing.T
	disk *powercut.Disk
}

func newFull(t *testing.T) *full {
	disk := powercut.New(t, 0)
	s := testkit.NewWith(t, testkit.Setup{Deps: func(d *server.Deps) { d.VFS, d.Reserve = disk.Name(), 1<<20 }})
	return &full{s, t, disk}
}

// fill makes the disk full but for the reserve.
func (f *full) fill() {
	f.t.Helper()
	if err := f.disk.SetFullBut(db.ReservePath(f.Settings.DSN())); err != nil {
		f.t.Fatal(err)
	}
	f.use()
}

// use uses up what room is left, until a call that gives rights is refused for it.
func (f *full) use() {
	f.t.Helper()
	for i := 0; ; i++ {
		r := f.Do(f.First, "POST /v1/keys", obj{"name": fmt.Sprint("filler ", i), "scope": "read-only"})
		if r.Status == 503 {
			if !strings.Contains(string(r.Body), "The disk of the database is full, or cannot be written: nothing was changed.") {
				f.t.Errorf("a full disk: %s", r.Body)
			}
			return
		}
		if r.Status != 201 || i > 2000 {
			f.t.Fatalf("call %d: %d %s", i, r.Status, r.Body)
		}
	}
}

// key makes a key, for reading only unless permissions are named.
func (f *full) key(name string, permissions ...string) (id, secret string) {
	f.t.Helper()
	wanted := obj{"name": name, "scope": "read-only"}
	if len(permissions) > 0 {
		wanted = obj{"name": name, "permissions": permissions}
	}
	r := f.Must(f.First, "POST /v1/keys", wanted)
	return r.Str("id"), r.Str("key")
}

func (f *full) wants(key, route string, body any, status int, text string) {
	f.t.Helper()
	if r := f.Do(key, route, body); r.Status != status || !strings.Contains(string(r.Body), text) {
		f.t.Errorf("%s: %d %s, wanted %d with %q", route, r.Status, r.Body, status, text)
	}
}

// TestRevokeOnAFullDisk: rights are taken away, and that is stored, also when there is room for nothing else.
func TestRevokeOnAFullDisk(t *testing.T) {
	t.Parallel()
	f := newFull(t)
	id, secret := f.key("leaked")
	narrowed, narrowedSecret := f.key("too much")
	rotated, rotatedSecret := f.key("rotated")
	tom := f.Must(f.First, "POST /v1/members", obj{"email": "tom@example.com", "role": "manager"})
	f.fill()
	f.Must(f.First, "POST /v1/keys/"+id+"/revoke", obj{})
	f.wants(secret, "GET /v1/keys/self", nil, 401, "key_revoked")
	f.Must(f.First, "PATCH /v1/keys/"+narrowed, obj{"permissions": []string{"cues:read"}})
	f.Must(f.First, "POST /v1/keys/"+rotated+"/rotate", obj{"now": true})
	f.Must(f.First, "DELETE /v1/members/"+tom.Str("id"), nil)
	f.use()
	f.disk.SetFull(false)
	f.Restart(time.Second)
	f.wants(secret, "GET /v1/keys/self", nil, 401, "key_revoked")
	f.wants(narrowedSecret, "GET /v1/executions", nil, 403, "insufficient_scope")
	f.wants(rotatedSecret, "GET /v1/keys/self", nil, 401, "key_rotated")
	f.wants(tom.Str("key"), "GET /v1/keys/self", nil, 401, "key_revoked")
}

// TestReserveIsKeptForEnds: keys that rotate, rename and narrow themselves and others as often as they like leave room for revocations,
// of their own workspace and of others.
func TestReserveIsKeptForEnds(t *testing.T) {
	t.Parallel()
	f := newFull(t)
	id, secret := f.key("leaked")
	_, turning := f.key("turning", "keys:rotate-self")
	named, _ := f.key("named")
	other := f.Must(f.First, "POST /v1/workspaces", obj{"name": "Other", "slug": "other"}).Str("key")
	their := f.Must(other, "POST /v1/keys", obj{"name": "theirs", "scope": "read-only"})
	f.fill()
	f.wants(f.First, "PATCH /v1/keys/"+named, obj{"name": "another name"}, 503, "nothing was changed")
	f.wants(turning, "POST /v1/keys/self/rotate", obj{}, 503, "nothing was changed")
	for n := 0; ; n++ {
		r := f.Do(turning, "POST /v1/keys/self/rotate", obj{"now": true})
		if r.Status != 200 {
			break
		}
		if turning = r.Str("key"); n > 1000 {
			t.Fatal("there is no end of rotations")
		}
	}
	for rate := 9999; f.Do(f.First, "PATCH /v1/keys/"+named, obj{"restrictions": obj{"rate_per_minute": rate}}).Status == 200; rate-- {
		if rate < 9000 {
			t.Fatal("there is no end of changes")
		}
	}
	f.Must(f.First, "POST /v1/keys/"+id+"/revoke", obj{})
	f.wants(secret, "GET /v1/keys/self", nil, 401, "key_revoked")
	f.Must(other, "POST /v1/keys/"+their.Str("id")+"/revoke", obj{})
}

// TestRevokeWithoutRoom: when not even the reserve is left, a revoked key is shut in memory until the server stops, and the answer
// says that this is not stored yet.
func TestRevokeWithoutRoom(t *testing.T) {
	t.Parallel()
	f := newFull(t)
	const stopped = "Stopped here now, but not stored yet"
	var ids, secrets []string
	for i := range 120 {
		id, secret := f.key(fmt.Sprint("key ", i))
		ids, secrets = append(ids, id), append(secrets, secret)
	}
	child := f.Must(f.First, "POST /v1/keys", obj{"name": "parent", "permissions": []string{"keys:write", "cues:read"}})
	grandchild := f.Must(child.Str("key"), "POST /v1/keys", obj{"name": "child", "permissions": []string{"cues:read"}})
	f.fill()
	n := 0
	for f.Do(f.First, "POST /v1/keys/"+ids[n]+"/revoke", obj{}).Status == 200 {
		f.wants(secrets[n], "GET /v1/keys/self", nil, 401, "key_revoked")
		n++
	}
	if n == 0 {
		t.Error("the reserve served nothing")
	}
	f.wants(secrets[n], "GET /v1/keys/self", nil, 401, "key_revoked")
	f.wants(f.First, "POST /v1/keys/"+ids[n]+"/revoke", obj{}, 503, stopped)
	f.wants(f.First, "POST /v1/keys/"+child.Str("id")+"/revoke", obj{}, 503, stopped)
	f.wants(grandchild.Str("key"), "GET /v1/keys/self", nil, 401, "key_revoked")
	f.wants(f.First, "PATCH /v1/keys/"+ids[n+1], obj{"permissions": []string{"cues:read"}}, 503, "nothing was changed")
	f.wants(secrets[n+1], "GET /v1/executions", nil, 200, "")

	f.disk.SetFull(false)
	f.Must(f.First, "PATCH /v1/keys/"+ids[n], obj{"name": "renamed"}) // what is stored later does not open it again
	f.wants(secrets[n], "GET /v1/keys/self", nil, 401, "key_revoked")
	f.Must(f.First, "POST /v1/keys/"+ids[n]+"/revoke", obj{})
	f.Restart(time.Second)
	f.wants(secrets[n], "GET /v1/keys/self", nil, 401, "key_revoked")
	f.wants(grandchild.Str("key"), "GET /v1/keys/self", nil, 200, "") // as the answer had said
}

// TestHealthAfterAFailedWrite: it is not healthy until a write succeeds, which it tries itself when asked, at most once a second.
func TestHealthAfterAFailedWrite(t *testing.T) {
	t.Parallel()
	f := newFull(t)
	f.wants("", "GET /health", nil, 200, `"database":"ok"`)
	f.wants("", "GET /status", nil, 200, "healthy")
	f.fill()
	if err := os.Chmod(f.Settings.Data, 0o700); err != nil { // doctor wants it so
		t.Fatal(err)
	}
	if err := os.Truncate(db.ReservePath(f.Settings.DSN()), 0); err != nil { // as doctor looks at it
		t.Fatal(err)
	}
	found := ""
	for _, d := range server.Doctor(t.Context(), f.Settings, server.Look{Now: time.Now()}) {
		if d.Err != nil {
			found += d.Err.Error()
		}
	}
	if !strings.Contains(found, "the disk is or was full") {
		t.Errorf("doctor: %s", found)
	}
	if err := f.disk.SetFullBut(db.ReservePath(f.Settings.DSN())); err != nil { // and nothing is to be had from it
		t.Fatal(err)
	}
	for range 2 {
		f.wants("", "GET /health", nil, 200, "the disk of its database is full")
		f.wants("", "GET /health", nil, 200, `"status":"degraded"`)
		f.wants("", "GET /status", nil, 503, "the disk of its database is full")
	}
	f.disk.SetFull(false)
	f.wants("", "GET /status", nil, 503, `"code":"down"`) // it was tried a moment ago
	f.Clock.Add(time.Second)
	f.wants("", "GET /status", nil, 200, "healthy")
	f.wants("", "GET /health", nil, 200, `"database":"ok"`)
}
