package op

import "strings"

// Need says what a caller must hold for an operation: Public, AnyKey, a permission such as "cues:read", or one of the forms
// made by SelfOr and SelfWith. The zero value is invalid.
type Need string

const (
	Public Need = "public"  // nobody is asked who he is
	AnyKey Need = "any key" // every valid key will do
)

const selfMark = "self"

// SelfOr is met by a key that acts on itself, and otherwise by the permission. Which object a call is about is known to the
// operation alone, so the operation decides; the guard only lets it come so far.
func SelfOr(permission Need) Need { return selfMark + "|" + permission }

// SelfWith is met by the permission `other`, or by a key that acts on itself and holds the permission `own`.
func SelfWith(own, other Need) Need { return selfMark + ":" + own + "|" + other }

// Permission is the permission that suffices whatever the object; "" for Public and AnyKey.
func (n Need) Permission() string {
	if n == Public || n == AnyKey {
		return ""
	}
	if _, p, ok := strings.Cut(string(n), "|"); ok {
		return p
	}
	return string(n)
}

// Self says whether acting on itself needs less, and which permission that still needs ("" for none).
func (n Need) Self() (permission string, ok bool) {
	own, _, ok := strings.Cut(string(n), "|")
	if !ok {
		return "", false
	}
	return strings.TrimPrefix(strings.TrimPrefix(own, selfMark), ":"), true
}

// String is how documentation writes the need.
func (n Need) String() string {
	own, ok := n.Self()
	switch {
	case !ok:
		return string(n)
	case own == "":
		return "itself, or " + n.Permission()
	}
	return own + " (itself), or " + n.Permission()
}
