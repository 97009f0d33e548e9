package access

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Codes of the operations on members.
var (
	MemberNotFound = op.Code{Status: 404, Name: "member_not_found", Doc: "The workspace has no such member."}
	MemberExists   = op.Code{Status: 409, Name: "member_exists", Doc: "The person is a member already. Change the role instead."}
	LastAdmin      = op.Code{Status: 409, Name: "last_admin", Doc: "A workspace keeps at least one admin. Make somebody else admin first."}
	MemberHasKeys  = op.Code{Status: 409, Name: "member_has_keys", Doc: "Integration keys belong to this member. Say what becomes of them: hand_over to yourself, or revoke."}
	OwnMembership  = op.Code{Status: 409, Name: "own_membership", Doc: "Nobody changes or removes his own membership. Another admin does it."}
)

// Member is a person in a workspace.
type Member struct {
	ID        string  `json:"id"`
	Email     string  `json:"email"`
	Role      string  `json:"role"`
	CreatedAt op.Time `json:"created_at" doc:"since when the person is a member"`
}

// Members is everybody in the workspace.
type Members struct {
	Members []Member `json:"members"`
}

func (a *Access) listMembers(ctx context.Context, _ struct{}) (out Members, err error) {
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		out.Members = []Member{}
		return each(tx, sqlMembers, []any{From(ctx).Workspace()}, func(r *sql.Rows) error {
			var m Member
			err := r.Scan(&m.ID, &m.Email, &m.Role, (*int64)(&m.CreatedAt))
			out.Members = append(out.Members, m)
			return err
		})
	})
	return out, err
}

type memberAdd struct {
	Email string `json:"email" format:"email" max:"254" doc:"e-mail address of the person"`
	Role  string `json:"role" enum:"viewer|operator|manager|admin" doc:"what the person may do"`
}

// NewMember is a member with the personal key that lets the person log in, shown this once.
type NewMember struct {
	Member
	Secret SecretText `json:"key" doc:"a personal key of the new member, shown this once; hand it over safely"`
}

func (a *Access) addMember(ctx context.Context, in memberAdd) (out NewMember, err error) {
	c := From(ctx)
	err = a.update(ctx, func(tx *db.Tx) error {
		r := a.reader(tx)
		caller, err := r.callerRights(c)
		if err != nil {
			return err
		}
		if err := c.mayGrant(caller, in.Role); err != nil {
			return err
		}
		who, err := a.personOf(tx, in.Email)
		if err != nil {
			return err
		}
		m, err := a.join(tx, c.Workspace(), who, in.Role)
		if err != nil {
			return err
		}
		key, err := r.insert(a.personalRow(m.workspace, m.user, "first key"))
		if err != nil {
			return err
		}
		out = NewMember{Member{who.ID, who.Email, m.role, op.Time(m.created)}, SecretText(key.Secret)}
		return Record(tx, Event{Object: "member", ID: who.ID, Name: who.Email, Detail: map[string]any{"role": in.Role, "key": SecretText(key.Secret).String()}})
	})
	return out, err
}

// join makes a person a member, who may have been one before.
func (a *Access) join(tx *db.Tx, workspace string, who person, role string) (memberRow, error) {
	m, err := readMember(tx, workspace, who.ID)
	switch {
	case isNone(err):
		m = memberRow{workspace, who.ID, role, 1, a.now()}
		return m, addMembership(tx, m)
	case err != nil:
		return m, fmt.Errorf("read a membership: %w", err)
	case m.role != "":
		return m, MemberExists.Msg("%s is a member already, as %s.", who.Email, m.role)
	}
	m.role, m.created = role, a.now()
	return m, setMembership(tx, m)
}

type memberUpdate struct {
	ID   string         `json:"id" doc:"id of the member"`
	Role string         `json:"role" enum:"viewer|operator|manager|admin" doc:"the new role"`
	Keys op.Opt[string] `json:"keys" enum:"hand_over|revoke" doc:"what becomes of the member's integration keys that hold what the new role does not"`
}

func (a *Access) updateMember(ctx context.Context, in memberUpdate) (Member, error) {
	return a.changeMember(ctx, in.ID, in.Role, in.Keys.Val)
}

type memberRemove struct {
	ID   string         `json:"id" doc:"id of the member"`
	Keys op.Opt[string] `json:"keys" enum:"hand_over|revoke" doc:"what becomes of the member's integration keys"`
}

func (a *Access) removeMember(ctx context.Context, in memberRemove) (op.None, error) {
	_, err := a.changeMember(ctx, in.ID, "", in.Keys.Val)
	return op.None{}, err
}

// changeMember gives a member another role, or none. Personal keys end or narrow in the same transaction; integration keys are a
// decision that the call must bring.
func (a *Access) changeMember(ctx context.Context, id, role, keys string) (out Member, err error) {
	c := From(ctx)
	err = a.update(ctx, func(tx *db.Tx) error {
		r := a.reader(tx)
		m, err := readMember(tx, c.Workspace(), id)
		if isNone(err) || err == nil && m.role == "" {
			return MemberNotFound.Msg("There is no member %s in this workspace.", id)
		}
		if err != nil {
			return err
		}
		who, err := personByID(tx, id)
		if err != nil {
			return err
		}
		out = Member{who.ID, who.Email, role, op.Time(m.created)}
		if err := r.mayChange(c, m, role); err != nil {
			return err
		}
		if m.role == role {
			Unchanged(tx)
			return nil
		}
		detail := map[string]any{"role": change{m.role, role}}
		if err := r.decideKeys(c, m, role, keys, detail); err != nil {
			return err
		}
		m.role = role
		if err := setMembership(tx, m); err != nil {
			return err
		}
		return Record(tx, Event{Object: "member", ID: id, Name: who.Email, Detail: detail})
	})
	return out, err
}

// mayChange says who may give a member another role: nobody to himself, and nobody who lacks what either role holds. One admin stays.
func (r *reader) mayChange(c *Caller, m memberRow, role string) error {
	caller, err := r.callerRights(c)
	if err != nil {
		return err
	}
	own := caller.key.user == m.user
	if !own {
		if err := c.mayGrant(caller, m.role, role); err != nil {
			return err
		}
	}
	if m.role == RoleAdmin && role != RoleAdmin {
		var admins int64
		if err := r.tx.Row(sqlAdmins, m.workspace).Scan(&admins); err != nil {
			return fmt.Errorf("count the admins: %w", err)
		}
		if admins < 2 {
			return LastAdmin.Msg("This is the workspace's last admin. Make somebody else admin first.")
		}
	}
	if own {
		return OwnMembership.Msg("You cannot change your own membership. Another admin does it.")
	}
	return nil
}

// mayGrant refuses roles that hold a permission the caller lacks. Managers set operators and viewers only: of another manager they
// lack what makes an admin.
func (c *Caller) mayGrant(caller rights, granted ...string) error {
	var need permSet
	for _, role := range granted {
		need |= rolePerms(role)
		if role == RoleManager {
			need |= bit("workspace:write")
		}
	}
	return c.wants(caller, need, "change who is a member")
}

// heldKey is an integration key of a member who leaves or is demoted.
type heldKey struct {
	Key
	LastProgram string `json:"last_program" doc:"user agent of its last call"`
}

type heldKeys struct {
	Keys []heldKey `json:"keys"`
	Mend string    `json:"mend"`
}

// decideKeys ends the personal keys of a member who leaves, and does with the integration keys what the call says. Without a word
// it refuses and lists them. A change of role concerns only keys that hold what the new role does not and the old one did.
func (r *reader) decideKeys(c *Caller, m memberRow, role, what string, detail map[string]any) error {
	rows, err := readKeys(r.tx, sqlKeysOfMember, m.workspace, m.user)
	if err != nil {
		return err
	}
	lost := rolePerms(m.role) &^ rolePerms(role)
	var theirs []keyRow
	for _, row := range rows {
		held, err := row.held()
		if err != nil {
			return err
		}
		switch {
		case row.kind != personal.String() && (role == "" || held&lost != 0):
			theirs = append(theirs, row)
		case row.kind == personal.String() && role == "":
			if err := r.a.endKey(r.tx, &row, c.KeyID()); err != nil {
				return err
			}
		}
	}
	if len(theirs) == 0 {
		return nil
	}
	if what == "" {
		return r.hasKeys(theirs)
	}
	acting, err := r.key(c.Workspace(), c.KeyID())
	if err != nil {
		return err
	}
	ids := make([]string, len(theirs))
	for i, row := range theirs {
		ids[i] = row.id
		if what == "revoke" {
			err = r.a.endKey(r.tx, &row, c.KeyID())
		} else {
			row.user = acting.user
			err = setKey(r.tx, &row)
		}
		if err != nil {
			return err
		}
	}
	detail["keys"], detail["key_ids"] = what, ids
	return nil
}

// hasKeys is the 409 that lists the keys about which the call must say something.
func (r *reader) hasKeys(rows []keyRow) error {
	keys, err := r.showAll(rows)
	if err != nil {
		return err
	}
	x := heldKeys{Mend: `Say keys=hand_over to take them over yourself, or keys=revoke to end them: in the query of a DELETE, in the body of a PATCH.`}
	for _, k := range keys {
		h := heldKey{Key: k}
		if k.LastUsed != nil {
			h.LastProgram = k.LastUsed.UserAgent
		}
		x.Keys = append(x.Keys, h)
	}
	e := MemberHasKeys.Msg("%d integration keys belong to this member. Say what becomes of them.", len(keys))
	if len(keys) == 1 {
		e.Message = "1 integration key belongs to this member. Say what becomes of it."
	}
	e.Extra = x
	return e
}

// personOf finds a person by e-mail address, or notes a new one.
func (a *Access) personOf(tx *db.Tx, email string) (person, error) {
	p := person{}
	err := p.scan(tx.Row(sqlUserByEmail, foldEmail(email)))
	if !isNone(err) {
		return p, err
	}
	p = person{newID("usr_"), email, op.Time(a.now())}
	if _, err := tx.Exec(sqlUserAdd, p.ID, p.Email, foldEmail(email), int64(p.CreatedAt)); err != nil {
		return p, fmt.Errorf("write a person: %w", err)
	}
	return p, nil
}

// foldEmail is how addresses are compared: without regard to case.
func foldEmail(email string) string { return strings.ToLower(email) }
