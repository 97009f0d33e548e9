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

// Codes of the operations on members.
var (
	MemberNotFound = op.Code{Status: 404, Name: "member_not_found", Doc: "The workspace has no such member."}
	MemberExists   = op.Code{Status: 409, Name: "member_exists", Doc: "The person is a member already. Change the role instead."}
	LastAdmin      = op.Code{Status: 409, Name: "last_admin", Doc: "A workspace keeps at least one admin. Make somebody else admin first."}
	MemberHasKeys  = op.Code{Status: 409, Name: "member_has_keys", Doc: "Integration keys belong to this member, or the member may know the secret of keys. Say what becomes of them: hand_over to yourself, or revoke."}
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
		who, err := a.personIn(tx, c.Workspace(), in.Email)
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
	switch full := a.roomForMember(tx, workspace); {
	case err == nil && m.role != "":
		return m, MemberExists.Msg("%s is a member already, as %s.", who.Email, m.role)
	case full != nil:
		return m, full
	case isNone(err):
		m = memberRow{workspace, who.ID, role, 1, a.now()}
		return m, addMembership(tx, m)
	case err != nil:
		return m, fmt.Errorf("read a membership: %w", err)
	}
	m.role, m.created = role, a.now()
	return m, setMembership(tx, m)
}

type memberUpdate struct {
	ID   string         `json:"id" doc:"id of the member"`
	Role string         `json:"role" enum:"viewer|operator|manager|admin" doc:"the new role"`
	Keys op.Opt[string] `json:"keys" enum:"hand_over|revoke" doc:"what becomes of the member's integration keys that hold what the new role does not"`
}

func (a *Access) updateMember(ctx context.Context, in memberUpdate) (ChangedMember, error) {
	return a.changeMember(ctx, in.ID, in.Role, in.Keys.Val)
}

type memberRemove struct {
	ID   string         `json:"id" doc:"id of the member"`
	Keys op.Opt[string] `json:"keys" enum:"hand_over|revoke" doc:"what becomes of the member's integration keys"`
}

func (a *Access) removeMember(ctx context.Context, in memberRemove) (ChangedMember, error) {
	return a.changeMember(ctx, in.ID, "", in.Keys.Val)
}

// changeMember gives a member another role, or none. Personal keys end or narrow in the same transaction; integration keys are a
// decision that the call must bring.
func (a *Access) changeMember(ctx context.Context, id, role, keys string) (out ChangedMember, err error) {
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
		out = ChangedMember{Member{who.ID, who.Email, role, op.Time(m.created)}, "", []KnownKey{}}
		if err := r.mayChange(c, m, role); err != nil {
			return err
		}
		if m.role == role {
			Unchanged(tx)
			return nil
		}
		if rolePerms(m.role)&^rolePerms(role) != 0 {
			tx.Urgent(m.workspace, db.Ending)
		}
		before, err := r.administered(m.workspace, "")
		if err != nil {
			return err
		}
		detail := map[string]any{"role": change{m.role, role}}
		if out.Known, err = r.decideKeys(c, m, role, keys, detail); err != nil {
			return err
		}
		m.role = role
		if err := setMembership(tx, m); err != nil {
			return err
		}
		after := a.reader(tx) // which has not read the role that was
		if still, err := after.administered(m.workspace, ""); err != nil {
			return err
		} else if before && !still {
			if out.Warning, err = after.nobodyAdministers("Now", m.workspace); err != nil {
				return err
			}
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

// roleNeeds is what a caller must hold who gives or takes a role. Managers set operators and viewers only: of another manager they lack
// what makes an admin.
func roleNeeds(role string) permSet {
	need := rolePerms(role)
	if role == RoleManager {
		need |= bit("workspace:write")
	}
	return need
}

// mayGrant refuses roles that hold a permission the caller lacks.
func (c *Caller) mayGrant(caller rights, granted ...string) error {
	var need permSet
	highest := granted[0]
	for _, role := range granted {
		need |= roleNeeds(role)
		if rolePerms(role).holds(rolePerms(highest)) {
			highest = role
		}
	}
	err := c.wants(caller, need, "change who is a member")
	if e := (*op.Error)(nil); errors.As(err, &e) && e.Code.Name == InsufficientScope.Name {
		e.Message = fmt.Sprintf("Nobody gives or takes the role %s who does not hold all that it holds.", highest)
		if role := c.grant.key.member.Load().role; c.grant.key.kind == personal {
			e.Message = fmt.Sprintf("Your role here is %s, which gives and takes no role that holds what it lacks, such as %s.", role, highest)
		}
	}
	return err
}

// personIn finds a member by e-mail address, or one who left and was nowhere else, or notes a new person. Whoever adds somebody is shown
// a key of that person, and would see with it where else a person belongs, or belonged, who only has the address.
func (a *Access) personIn(tx *db.Tx, workspace, email string) (person, error) {
	p := person{}
	err := p.scan(tx.Row(sqlUserInWorkspace, workspace, foldEmail(email)))
	if !isNone(err) {
		return p, err
	}
	return a.newPerson(tx, email, false)
}

// newPerson notes a person; signedUp says that somebody came with the address by sign-up.
func (a *Access) newPerson(tx *db.Tx, email string, signedUp bool) (person, error) {
	p := person{newID(userPrefix), email, op.Time(a.now())}
	up := 0
	if signedUp {
		up = 1
	}
	if _, err := tx.Exec(sqlUserAdd, p.ID, p.Email, foldEmail(email), up, int64(p.CreatedAt)); err != nil {
		return p, fmt.Errorf("write a person: %w", err)
	}
	return p, nil
}

// foldEmail is how addresses are compared: without regard to case.
func foldEmail(email string) string { return strings.ToLower(email) }
