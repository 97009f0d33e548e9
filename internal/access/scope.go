package access

import (
	"context"
	"strconv"
)

// ScopeInfo is a named scope in words and as permissions.
type ScopeInfo struct {
	Name        string   `json:"name"`
	Can         string   `json:"can" doc:"completes: A key with this scope can …"`
	Cannot      string   `json:"cannot" doc:"completes: It cannot …"`
	Permissions []string `json:"permissions"`
	SameAs      *string  `json:"same_as" doc:"a smaller scope from which no operation of this server tells it; null when there is none"`
}

// PermissionInfo is a permission in words.
type PermissionInfo struct {
	Name   string   `json:"name"`
	Words  string   `json:"words" doc:"completes: It can …"`
	Scopes []string `json:"scopes" doc:"scopes that hold it, smallest first"`
}

// ScopeList is everything that a key can be given on this server.
type ScopeList struct {
	Scopes      []ScopeInfo      `json:"scopes" doc:"smallest first"`
	Permissions []PermissionInfo `json:"permissions"`
}

func (a *Access) listScopes(context.Context, struct{}) (ScopeList, error) {
	out := ScopeList{}
	for _, s := range scopes {
		info := ScopeInfo{Name: s.Name, Can: s.Can, Cannot: s.Cannot, Permissions: s.perms.names()}
		if same := sameAs(s); same != "" {
			info.SameAs = &same
		}
		out.Scopes = append(out.Scopes, info)
	}
	for _, p := range permissions {
		out.Permissions = append(out.Permissions, PermissionInfo{p.name, p.words, scopesHolding(bit(p.name))})
	}
	return out, nil
}

func plural(n int64, noun string) string {
	s := strconv.FormatInt(n, 10) + " " + noun
	if n != 1 {
		s += "s"
	}
	return s
}
