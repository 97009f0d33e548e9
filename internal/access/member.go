package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Codes of the operations on members and workspaces.
var (
	MemberNotFound    = op.Code{Status: 404, Name: "member_not_found", Doc: "The workspace has no such member."}
	MemberExists      = op.Code{Status: 409, Name: "member_exists", Doc: "The person is a member already. Change the role instead."}
	LastAdmin         = op.Code{Status: 409, Name: "last_admin", Doc: "A workspace keeps at least one admin. Make somebody else admin first."}
	MemberHasKeys     = op.Code{Status: 409, Name: "member_has_keys", Doc: "Integration keys belong to this member. Say what becomes of them: hand_over to yourself, or revoke."}
	OwnMembership     = op.Code{Status: 409, Name: "own_membership", Doc: "Nobody changes or removes his own membership. Another admin does it."}
	WorkspaceNotFound = op.Code{Status: 404, Name: "workspace_not_found", Doc: "There is no such workspace, or you are not a member of it."}
	DuplicateSlug     = op.Code{Status: 409, Name: "duplicate_slug", Doc: "Another workspace has this slug. Choose another."}
	DuplicateEmail    = op.Code{Status: 409, Name: "duplicate_email", Doc: "Another person has this e-mail address."}
)

// Member is a person in a workspace.
type Member struct {
	ID        string  `json:"id"`
	Email     string  `json:"email"`
	Role      string  `json:"role"`
	CreatedAt op.Time `json:"created_at"`
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
			var rev int64
			err := r.Scan(&m.ID, &m.Email, &m.Role, &rev, (*int64)(&m.CreatedAt))
			out.Members = append(out.Members, m)
			return err
		})
	})
	return out, err
}

type memberAdd struct {
	Email string `json:"email" format:"email" doc:"e-mail address of the person"`
	Role  string `json:"role" enum:"viewer|operator|manager|admin" doc:"what the person may do"`
}

// NewMember is a member with the personal key that lets the person log in, shown this once.
type NewMember struct {
	Member
	Secret string `json:"key" doc:"a personal key of the new member, shown this once; hand it over safely"`
}

func (a *Access) addMember(ctx context.Context, in memberAdd) (out NewMember, err error) {
	c := From(ctx)
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		if err := a.mayGrant(tx, c, "", in.Role); err != nil {
			return err
		}
		user, err := a.userOf(tx, in.Email)
		if err != nil {
			return err
		}
		m, err := readMember(tx, c.Workspace(), user.ID)
		switch {
		case err == nil && m.role != "":
			return MemberExists.Msg("%s is a member already, as %s.", user.Email, m.role)
		case err == nil:
			m.role = in.Role
			err = a.storeMember(tx, m)
		case errors.Is(err, sql.ErrNoRows):
			m = memberRow{workspace: c.Workspace(), user: user.ID, role: in.Role, rev: 1}
			err = a.insertMember(tx, m)
		}
		if err != nil {
			return err
		}
		key, err := a.writeKey(tx, a.personalRow(c.Workspace(), user.ID, "first key"))
		if err != nil {
			return err
		}
		out = NewMember{Member{user.ID, user.Email, in.Role, op.Time(a.now())}, key.Secret}
		return Record(tx, Event{Object: "member", ID: user.ID, Name: user.Email, Detail: map[string]any{"role": in.Role, "key": key.Redacted}})
	})
	return out, err
}

// personalRow is a personal key of scope full for a year.
func (a *Access) personalRow(workspace, user, name string) keyRow {
	end := a.now() + yearUS
	return keyRow{
		id: newID("key_"), workspace: workspace, user: user, kind: personal.String(), name: name, scope: "full", permissions: "[]",
		restrictions: "{}", created: a.now(), createdBy: user, expires: &end, rev: 1,
	}
}

type memberUpdate struct {
	ID   string         `json:"id" doc:"id of the member"`
	Role string         `json:"role" enum:"viewer|operator|manager|admin" doc:"the new role"`
	Keys op.Opt[string] `json:"keys" enum:"hand_over|revoke" doc:"what becomes of integration keys that hold more than the new role"`
}

func (a *Access) updateMember(ctx context.Context, in memberUpdate) (out Member, err error) {
	err = a.changeMember(ctx, in.ID, in.Role, in.Keys.Val, &out)
	return out, err
}

type memberRemove struct {
	ID   string         `json:"id" doc:"id of the member"`
	Keys op.Opt[string] `json:"keys" enum:"hand_over|revoke" doc:"what becomes of the integration keys of the member"`
}

func (a *Access) removeMember(ctx context.Context, in memberRemove) (op.None, error) {
	return op.None{}, a.changeMember(ctx, in.ID, "", in.Keys.Val, nil)
}

// changeMember gives a member another role, or none. Personal keys end or narrow in the same transaction; integration keys are a
// decision that the call must bring.
func (a *Access) changeMember(ctx context.Context, id, role, keys string, out *Member) error {
	c := From(ctx)
	return a.DB.Update(ctx, func(tx *db.Tx) error {
		m, err := readMember(tx, c.Workspace(), id)
		if errors.Is(err, sql.ErrNoRows) || err == nil && m.role == "" {
			return MemberNotFound.Msg("There is no member %s in this workspace.", id)
		}
		if err != nil {
			return err
		}
		if err := a.mayGrant(tx, c, id, m.role, role); err != nil {
			return err
		}
		if m.role == RoleAdmin && role != RoleAdmin {
			if err := keepAnAdmin(tx, c.Workspace()); err != nil {
				return err
			}
		}
		was := m.role
		detail := map[string]any{"role": change{was, role}}
		if err := a.decideKeys(tx, c, m, role, keys, detail); err != nil {
			return err
		}
		m.role = role
		if err := a.storeMember(tx, m); err != nil {
			return err
		}
		user, err := userByID(tx, id)
		if err != nil {
			return err
		}
		if out != nil {
			*out = Member{user.ID, user.Email, role, user.CreatedAt}
		}
		return Record(tx, Event{Object: "member", ID: id, Name: user.Email, Detail: detail})
	})
}

func keepAnAdmin(tx *db.Tx, workspace string) error {
	var n int64
	if err := tx.Row(sqlAdmins, workspace).Scan(&n); err != nil {
		return fmt.Errorf("count the admins: %w", err)
	}
	if n < 2 {
		return LastAdmin.Msg("This is the workspace's last admin. Make somebody else admin first.")
	}
	return nil
}

// mayGrant refuses a role, present or future, that holds a permission the caller lacks, and any change of the caller's own membership.
// A caller without keys of its own admin's width may set operators and viewers only, which follows from the same rule.
func (a *Access) mayGrant(tx *db.Tx, c *Caller, member string, roles ...string) error {
	r, err := a.callerRights(tx, c)
	if err != nil {
		return err
	}
	if r.user == member {
		return OwnMembership.Msg("You cannot change your own membership. Another admin does it.")
	}
	if r.restricted {
		return a.restrictedMaker(c, "change who is a member")
	}
	for _, role := range roles {
		lacks := rolePerms(role) &^ r.perms
		if lacks == 0 && role == RoleManager && !r.perms.has("workspace:write") { // managers set operators and viewers
			lacks = mustPerms("workspace:write")
		}
		if lacks != 0 {
			return a.missing(c.holding(r.perms), c.call.Operation, lacks.names()...)
		}
	}
	return nil
}

// HeldKey is an integration key of a member who leaves or is demoted.
type HeldKey struct {
	Key
	LastProgram string `json:"last_program" doc:"user agent of its last call"`
}

type heldKeys struct {
	Keys []HeldKey `json:"keys"`
	Mend string    `json:"mend"`
}

// decideKeys ends the personal keys of a member who leaves, and does with the integration keys what the call says. Without a word
// it refuses and lists them. A demotion concerns only keys that hold more than the new role.
func (a *Access) decideKeys(tx *db.Tx, c *Caller, m memberRow, role, what string, detail map[string]any) error {
	rows, err := keysOfMember(tx, m.workspace, m.user)
	if err != nil {
		return err
	}
	var theirs []keyRow
	for _, row := range rows {
		perms, err := effective(row.scope, row.permissions)
		if err != nil {
			return err
		}
		switch {
		case row.kind == "personal" && role == "":
			if _, err := a.endKey(tx, row, c.KeyID()); err != nil {
				return err
			}
		case row.kind != "personal" && perms&^rolePerms(role) != 0:
			theirs = append(theirs, row)
		}
	}
	if len(theirs) == 0 {
		return nil
	}
	if what == "" {
		return a.hasKeys(tx, theirs)
	}
	acting, err := readKey(tx, c.Workspace(), c.KeyID())
	if err != nil {
		return err
	}
	names := []string{}
	for _, row := range theirs {
		names = append(names, row.id)
		if what == "revoke" {
			_, err = a.endKey(tx, row, c.KeyID())
		} else {
			row.user = acting.user
			err = a.storeKey(tx, row)
		}
		if err != nil {
			return err
		}
	}
	detail["keys"], detail["key_ids"] = what, names
	return nil
}

func (a *Access) hasKeys(tx *db.Tx, rows []keyRow) error {
	x := heldKeys{Mend: `Send keys: "hand_over" to take them over yourself, or keys: "revoke" to end them.`}
	for _, row := range rows {
		k, err := a.show(tx, row)
		if err != nil {
			return err
		}
		h := HeldKey{Key: k}
		if k.LastUsed != nil {
			h.LastProgram = k.LastUsed.UserAgent
		}
		x.Keys = append(x.Keys, h)
	}
	e := MemberHasKeys.Msg("%s belong to this member. Say what becomes of them.", plural(int64(len(rows)), "integration key"))
	if len(rows) == 1 {
		e.Message = "1 integration key belongs to this member. Say what becomes of it."
	}
	e.Extra = x
	return e
}

type person struct {
	ID, Email string
	CreatedAt op.Time
}

// userOf finds a person by e-mail address, or notes a new one.
func (a *Access) userOf(tx *db.Tx, email string) (person, error) {
	p := person{}
	err := tx.Row(sqlUserByEmail, foldEmail(email)).Scan(&p.ID, &p.Email, (*int64)(&p.CreatedAt))
	if !errors.Is(err, sql.ErrNoRows) {
		return p, err
	}
	p = person{newID("usr_"), email, op.Time(a.now())}
	if _, err := tx.Exec(sqlUserAdd, p.ID, p.Email, foldEmail(email), int64(p.CreatedAt)); err != nil {
		return p, fmt.Errorf("write a person: %w", err)
	}
	return p, nil
}

func userByID(tx *db.Tx, id string) (person, error) {
	p := person{}
	return p, tx.Row(sqlUserByID, id).Scan(&p.ID, &p.Email, (*int64)(&p.CreatedAt))
}

func readMember(tx *db.Tx, workspace, user string) (memberRow, error) {
	m := memberRow{workspace: workspace, user: user}
	var created int64
	return m, tx.Row(sqlMember, workspace, user).Scan(&m.role, &m.rev, &created)
}

func (a *Access) insertMember(tx *db.Tx, m memberRow) error {
	if _, err := tx.Exec(sqlMemberAdd, m.workspace, m.user, m.role, m.rev, a.now()); err != nil {
		return fmt.Errorf("write a membership: %w", err)
	}
	a.publishMember(tx, m)
	return nil
}

func (a *Access) storeMember(tx *db.Tx, m memberRow) error {
	m.rev++
	if _, err := tx.Exec(sqlMemberSet, m.workspace, m.user, m.role, m.rev); err != nil {
		return fmt.Errorf("change a membership: %w", err)
	}
	a.publishMember(tx, m)
	return nil
}

func (a *Access) publishMember(tx *db.Tx, m memberRow) {
	tx.AfterCommit(func() { a.publish(func(t *table) error { t.putMember(m); return nil }) })
}

// foldEmail is how addresses are compared: without regard to case.
func foldEmail(email string) string { return strings.ToLower(email) }
