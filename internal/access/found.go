package access

import (
	"context"
	"fmt"
	"strings"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// DuplicateEmail refuses to sign an address up twice on the day of its first sign-up.
var DuplicateEmail = op.Code{Status: 409, Name: "duplicate_email", Doc: "This address signed up within the last 24 hours. Use the key that was shown then. Later the address can sign up again, for another workspace."}

// heldFor is how long after its first sign-up an address cannot sign up again. It catches whoever sends the form twice. It ends, because
// an address proves nothing: whoever signs up with the address of somebody else must not keep that person out.
const heldFor = dayUS

type registerIn struct {
	Email string `json:"email" format:"email" max:"254"`
}

// Registered is a new account with its key, shown this once.
type Registered struct {
	APIKey SecretText `json:"api_key"`
	Email  string     `json:"email"`
}

// register signs a person up: a workspace, its admin, and that admin's personal key. It is a new person, whatever else is known of the
// address: see person.
func (a *Access) register(ctx context.Context, in registerIn) (out Registered, err error) {
	if !a.Register && !a.Dev {
		return out, NotFound.Msg("Not found")
	}
	plan, _ := planOf(a.RegisterPlan) // which Open has checked
	err = a.update(ctx, func(tx *db.Tx) error {
		var first int64
		if err := tx.Row(sqlFirstSignUp, foldEmail(in.Email)).Scan(&first); err != nil {
			return fmt.Errorf("look for an earlier sign-up: %w", err)
		}
		if first != 0 && a.now()-first < heldFor {
			return DuplicateEmail.Msg("Email already registered")
		}
		who, err := a.newPerson(tx, in.Email, true)
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(in.Email, "@")
		w, err := a.found(tx, name, "", plan, who.ID)
		if err != nil {
			return err
		}
		key, err := a.reader(tx).insert(a.personalRow(w.id, who.ID, "first key"))
		if err != nil {
			return err
		}
		out = Registered{SecretText(key.Secret), who.Email}
		row := a.serverRow("account.register", "workspace", w.id, w.name, map[string]any{"member": who.ID, "key": SecretText(key.Secret).String()})
		call := op.CallOf(ctx)
		row.IP, row.Via, row.RequestID = addrText(a.proxies.client(call.Peer, call.Forwarded)), doorOf(call), call.ID
		return a.append(tx, w.id, row)
	})
	return out, err
}

// FirstRun makes a workspace, its admin and that admin's personal key when the database has none. made is false otherwise. Without
// withKey everything but the key is made.
func (a *Access) FirstRun(ctx context.Context, email string, withKey bool) (key NewKey, made bool, err error) {
	err = a.update(ctx, func(tx *db.Tx) error {
		key, made = NewKey{}, false
		ids, err := workspaceIDs(tx)
		if err != nil || len(ids) > 0 {
			return err
		}
		who, err := a.newPerson(tx, email, false)
		if err != nil {
			return err
		}
		plan, _ := planOf(planSelfHosted)
		w, err := a.found(tx, "default", "default", plan, who.ID)
		if err != nil {
			return err
		}
		detail := map[string]any{"member": who.Email}
		if withKey {
			if key, err = a.reader(tx).insert(a.personalRow(w.id, who.ID, "first key")); err != nil {
				return err
			}
			detail["key"] = SecretText(key.Secret).String()
		}
		made = true
		return a.append(tx, w.id, a.serverRow("server.first_run", "workspace", w.id, w.name, detail))
	})
	return key, made, err
}

// LocalLogin makes a personal key of the first admin of a workspace, by slug or id, or of the oldest one when that is "", for whoever may
// read the data directory. slug is that of the workspace that the key is in.
func (a *Access) LocalLogin(ctx context.Context, name, workspace string) (key NewKey, slug string, err error) {
	if name == "" {
		name = "local login " + a.Now().UTC().Format(time.DateOnly)
	}
	err = a.update(ctx, func(tx *db.Tx) error {
		var ws, user string
		switch err := tx.Row(sqlAnyAdmin, workspace).Scan(&ws, &user); {
		case isNone(err) && workspace != "":
			return WorkspaceNotFound.Msg("There is no workspace %s.", workspace)
		case isNone(err):
			return fmt.Errorf("this server has no workspace yet; start it once with `unstuck serve`")
		case err != nil:
			return err
		}
		w, err := readWorkspace(tx, ws)
		if err != nil {
			return err
		}
		row := a.personalRow(ws, user, name)
		if key, err = a.reader(tx).insert(row); err != nil {
			return err
		}
		slug = w.slug
		return a.append(tx, ws, a.serverRow("auth.login_local", "key", row.id, row.name, map[string]any{"key": SecretText(key.Secret).String()}))
	})
	return key, slug, err
}
