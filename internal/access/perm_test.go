package access

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func drawPerms(t *rapid.T, label string) permSet {
	names := rapid.SliceOfDistinct(rapid.SampledFrom(allPerms.names()), rapid.ID[string]).Draw(t, label)
	return mustPerms(names...)
}

// TestPermissionAlgebra holds what keys rely on: lists are read back as they were written, more names never mean less, and write
// implies read of the same noun and nothing else.
func TestPermissionAlgebra(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawPerms(t, "a"), drawPerms(t, "b")
		if again := mustPerms(a.names()...); again != a {
			t.Fatalf("%v became %v", a.names(), again.names())
		}
		if both := mustPerms(slices.Concat(a.names(), b.names())...); both != a|b {
			t.Fatalf("%v and %v together are %v", a.names(), b.names(), both.names())
		}
		if stored, err := effective(custom, listText(custom, a)); err != nil || stored != a {
			t.Fatalf("%v stored is %v, %v", a.names(), stored.names(), err)
		}
		if !(a | b).holds(a) || a.holds(a|b) != (b&^a == 0) {
			t.Fatal("holds does not follow from the bits")
		}
		for _, name := range scopesHolding(a) {
			if s, _ := scopeOf(name); !s.perms.holds(a) {
				t.Fatalf("scope %s does not hold %v", name, a.names())
			}
		}
		if len(scopesHolding(a)) == 0 {
			t.Fatalf("not even full holds %v", a.names())
		}
		if role := rolePerms(smallestRole(a)); !role.holds(a) {
			t.Fatalf("role %s does not hold %v", smallestRole(a), a.names())
		}
	})
	for _, p := range permissions {
		noun, verb, _ := strings.Cut(p.name, ":")
		want := []string{p.name}
		if verb == "write" && permIndex(noun+":read") >= 0 {
			want = []string{noun + ":read", p.name}
		}
		if diff := cmp.Diff(want, mustPerms(p.name).names()); diff != "" {
			t.Errorf("%s: %s", p.name, diff)
		}
	}
}

// TestScopesAndRoles says in full what each holds, so that a change of a right is seen in review.
func TestScopesAndRoles(t *testing.T) {
	t.Parallel()
	reads := []string{"cues:read", "executions:read", "alerts:read", "usage:read"}
	want := map[string][]string{
		"worker":           {"executions:read", "executions:claim", "executions:report"},
		"read-only":        reads,
		"write-enrichment": reads,
		"write-signals":    reads,
		"write-cues":       {"cues:read", "cues:write", "cues:fire", "executions:read", "executions:verify", "executions:replay", "alerts:read", "alerts:write", "usage:read"},
		"full":             allPerms.names(),
		RoleViewer:         reads,
		RoleOperator:       {"cues:read", "cues:fire", "executions:read", "executions:claim", "executions:report", "executions:verify", "executions:replay", "alerts:read", "alerts:write", "usage:read"},
		RoleManager: {"cues:read", "cues:write", "cues:fire", "executions:read", "executions:claim", "executions:report", "executions:verify", "executions:replay",
			"alerts:read", "alerts:write", "usage:read", "keys:read", "keys:write", "members:read", "members:write"},
		RoleAdmin: allPerms.names(),
		"":        {},
	}
	got := map[string][]string{"": rolePerms("").names()}
	for _, s := range scopes {
		got[s.Name] = s.perms.names()
	}
	for _, r := range roles {
		got[r.name] = r.perms.names()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for i := 1; i < len(roles); i++ {
		if !roles[i].perms.holds(roles[i-1].perms) {
			t.Errorf("%s does not hold what %s does", roles[i].name, roles[i-1].name)
		}
	}
}

// TestStoredRightsOfOtherVersions grant nothing: neither a scope nor a permission that this version does not know.
func TestStoredRightsOfOtherVersions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		scope, list string
		want        permSet
	}{
		{"write-everything", "[]", 0},
		{custom, `["cues:read","moon:write"]`, bit("cues:read")},
		{custom, `[]`, 0},
		{"read-only", `["keys:write"]`, readOnly},
	} {
		if got, err := effective(test.scope, test.list); err != nil || got != test.want {
			t.Errorf("%s %s: %v, %v", test.scope, test.list, got.names(), err)
		}
	}
	if _, err := effective(custom, "{"); err == nil {
		t.Error("a damaged list was read")
	}
}

func TestListScopes(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		out := w.must("", "scope.list", nil)
		same := map[string]any{}
		for _, s := range out["scopes"].([]any) {
			scope := answer(s.(map[string]any))
			same[scope.str("name")] = scope["same_as"]
			if scope.str("can") == "" || scope.str("cannot") == "" {
				t.Errorf("%s lacks a sentence", scope.str("name"))
			}
		}
		want := map[string]any{"worker": nil, "read-only": nil, "write-enrichment": "read-only", "write-signals": "read-only", "write-cues": nil, "full": nil}
		if diff := cmp.Diff(want, same); diff != "" {
			t.Error(diff)
		}
		if n := len(out["permissions"].([]any)); n != len(permissions) {
			t.Errorf("%d permissions", n)
		}
	})
}
