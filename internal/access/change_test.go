package access

import (
	"path/filepath"
	"testing"

	"unstuck/internal/db"
	"unstuck/internal/db/powercut"
	"unstuck/internal/op"
)

// TestCommitOfUnknownFate lets the disk fail while a change of rights is saved. Nobody gets in whose rights it may have ended until it is
// known, a revocation is repeated until it is done, and every other call is told to look before it repeats.
func TestCommitOfUnknownFate(t *testing.T) {
	t.Parallel()
	disk := powercut.New(t, 1)
	w := &world{TB: t, dsn: filepath.Join(t.TempDir(), "test.db"), dir: t.TempDir(), clock: newHands(), log: &journal{}, toys: newToys(), vfs: disk.Name()}
	if _, err := ReadSecretFile(w.dir, true); err != nil {
		t.Fatal(err)
	}
	w.open()
	key, _, err := w.a.FirstRun(t.Context(), "admin@example.com", true)
	if err != nil {
		t.Fatal(err)
	}
	w.admin = key.Secret
	secret, id := w.key("write-cues")
	tomID, tom := w.member("tom@example.com", RoleManager)

	disk.FailSyncs(1)
	w.refused(op.Unavailable, w.admin, "key.update", in{"id": id, "permissions": []string{"cues:read"}})
	w.must(secret, "cue.create", nil) // it was not saved, which was found out at once
	disk.FailSyncs(1)
	w.refused(op.Unavailable, w.admin, "member.update", in{"id": tomID, "role": RoleViewer})
	w.must(tom, "cue.create", nil)

	disk.FailSyncs(2) // the change, and the attempt to find out
	w.refused(op.Unavailable, w.admin, "key.update", in{"id": id, "permissions": []string{"cues:read"}})
	w.refused(op.Unavailable, secret, "cue.list", nil)
	if w.a.KeyLives(id) {
		t.Error("a key that may have ended lives")
	}
	if err := w.a.settle(); err != nil { // as Run does every few seconds
		t.Fatal(err)
	}
	w.must(secret, "cue.create", nil)

	disk.FailSyncs(1)
	w.must(w.admin, "key.revoke", in{"id": id})
	w.refused(KeyRevoked, secret, "cue.list", nil)
	if n := len(w.audit("key.revoke")); n != 1 {
		t.Errorf("%d rows about one revocation", n)
	}
	w.stop()
	w.open()
	w.refused(KeyRevoked, secret, "cue.list", nil)
}

// TestChangeThatWasSavedAfterAll is found when the rows are read again, whatever memory believed.
func TestChangeThatWasSavedAfterAll(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("write-cues")
		second, secondID := w.key("write-cues")
		tomID, tom := w.member("tom@example.com", RoleManager)
		ws := w.workspace()
		changed := &changes{
			keys:       []keyRow{{id: id}, {id: "key_000000000000"}},
			members:    []memberRow{{workspace: ws, user: tomID}, {workspace: ws, user: "usr_000000000000"}},
			workspaces: []workspaceRow{{id: ws}, {id: "ws_000000000000"}},
		}
		err := w.db.View(t.Context(), func(tx *db.Tx) (err error) { changed.secrets, err = readSecrets(tx, secondID); return err })
		if err != nil {
			t.Fatal(err)
		}
		exec(t, w.db, "UPDATE keys SET revoked_at = 1, revoked_by = ?2, rev = rev + 1 WHERE id = ?1", id, tomID)
		exec(t, w.db, "UPDATE secrets SET state = 'ended' WHERE key_id = ?1", secondID)
		exec(t, w.db, "UPDATE memberships SET role = 'viewer', rev = rev + 1 WHERE user_id = ?1", tomID)
		w.a.shut(changed)
		for _, s := range []string{secret, second, tom} {
			w.refused(op.Unavailable, s, "cue.list", nil)
		}
		if err := w.a.settle(); err != nil {
			t.Fatal(err)
		}
		w.refused(KeyRevoked, secret, "cue.list", nil)
		w.refused(KeyRotated, second, "cue.list", nil)
		w.refused(InsufficientScope, tom, "cue.create", nil)
		w.must(tom, "cue.list", nil)
	})
}

// TestOldRowsDoNotComeBack: what is older than what memory holds is passed over, and a revocation never goes back.
func TestOldRowsDoNotComeBack(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("write-cues")
		var old keyRow
		read := func(tx *db.Tx) (err error) { old, err = readKey(tx, w.keyOf(secret).ws().id, id); return err }
		if err := w.db.View(t.Context(), read); err != nil {
			t.Fatal(err)
		}
		w.must(w.admin, "key.update", in{"id": id, "permissions": []string{"cues:read"}})
		w.a.take(&changes{keys: []keyRow{old}})
		w.refused(InsufficientScope, secret, "cue.create", nil)
		w.must(w.admin, "key.revoke", in{"id": id})
		old.rev += 100
		w.a.take(&changes{keys: []keyRow{old}})
		w.refused(KeyRevoked, secret, "cue.list", nil)
	})
}
