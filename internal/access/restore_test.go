package access

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/db"
)

// TestRestoredSecrets: no secret that was refused before a restore passes after it, however it ended; one that was about to end does so
// when it would have. What goes back all the same is told: webhook secrets, and keys that have no secret left that lasts.
func TestRestoredSecrets(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		overlapped, overlappedID := w.key("worker", in{"name": "overlapped"})
		ending, endingID := w.key("worker", in{"name": "ending"})
		both, bothID := w.key("worker", in{"name": "both"})
		known := w.must(w.admin, "key.rotate", in{"id": bothID, "overlap": "1h"})["key"].(string) // pending in the backup
		kept, keptID := w.key("worker", in{"name": "kept"})
		seen, seenID := w.key("worker", in{"name": "seen"})
		_, first := w.member("handed@example.com", RoleAdmin)
		newcomer, newcomerID := w.key("worker", in{"name": "seen by a newcomer"})
		leaver, _ := w.member("leaver@example.com", RoleManager)
		for _, table := range []string{"secrets", "workspaces"} {
			exec(t, w.db, "CREATE TABLE old_"+table+" AS SELECT * FROM "+table)
		}
		seq := len(w.audit(""))

		turn := func(by, id, overlap string) {
			t.Helper()
			next := w.must(by, "key.rotate", in{"id": id, "overlap": overlap})["key"].(string)
			w.must(next, "key.self", nil)
		}
		turn(w.admin, overlappedID, "1h")
		w.must(known, "key.self", nil)
		w.clock.advance(2 * time.Hour)
		turn(first, "self", "0s")
		turn(w.admin, endingID, "1h")
		w.must(w.admin, "key.rotate", in{"id": keptID}) // never used: the old secret has no end
		exec(t, w.db, "UPDATE secrets SET shown_to = ?2 WHERE key_id = ?1", seenID, leaver)
		exec(t, w.db, "UPDATE secrets SET shown_to = 'usr_newcomer0000' WHERE key_id = ?1", newcomerID) // whom the backup does not know
		w.must(w.admin, "webhook_secret.rotate", nil)
		refused := []string{overlapped, both, first}
		for _, secret := range refused {
			w.refused(KeyRotated, secret, "key.self", nil)
		}
		if err := w.a.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		ended, err := w.a.Ended(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.stop()
		w.open(func(o *Options) { o.LookOnly = true }) // the copy from before
		exec(t, w.db, "DELETE FROM secrets")
		exec(t, w.db, "INSERT INTO secrets SELECT * FROM old_secrets")
		exec(t, w.db, "UPDATE workspaces SET webhook_secret = (SELECT o.webhook_secret FROM old_workspaces o WHERE o.id = workspaces.id)")
		exec(t, w.db, "DELETE FROM audit WHERE seq > ?1", seq)
		w.crash()
		if err := w.a.ForgetHeads(); err != nil {
			t.Fatal(err)
		}
		w.open()
		got, err := w.a.KeepEnded(t.Context(), ended)
		if err != nil {
			t.Fatal(err)
		}
		if got.Ended != 4 || len(got.Rotate) != 3 || len(got.Signing) != 1 {
			t.Errorf("%+v", got)
		}
		for _, key := range []string{"overlapped (" + overlappedID + ")", "ending (" + endingID + ")"} {
			if !slices.Contains(got.Rotate, key) {
				t.Errorf("%s is not named: %q", key, got.Rotate)
			}
		}
		for _, secret := range refused {
			w.refused(KeyRotated, secret, "key.self", nil)
		}
		for _, secret := range []string{ending, kept, known, seen, newcomer} {
			w.must(secret, "key.self", nil)
		}
		var shown string
		if err := scanOne(w, &shown, "SELECT shown_to FROM secrets WHERE key_id = ?1", seenID); err != nil || shown != leaver {
			t.Errorf("shown to %q, %v", shown, err)
		}
		w.clock.advance(time.Hour)
		w.refused(KeyRotated, ending, "key.self", nil)
		w.must(kept, "key.self", nil)
		again, err := w.a.KeepEnded(t.Context(), ended)
		if diff := cmp.Diff(Kept{Signing: got.Signing}, again); diff != "" || err != nil {
			t.Errorf("again: %s %v", diff, err)
		}
	})
}

func scanOne(w *world, to any, query string, args ...any) error {
	return w.db.View(w.Context(), func(tx *db.Tx) error { return tx.Row(query, args...).Scan(to) })
}
