package cli

import (
	"fmt"
	"slices"
	"strings"

	"unstuck/internal/server"
)

// variables are the names in the environment that begin with UNSTUCK_ and mean something: to the server, to this program, to receivers
// of callbacks, and to deploy/compose.yaml.
func variables() []string {
	out := []string{keyVar, urlVar, "UNSTUCK_WEBHOOK_SECRET", "UNSTUCK_IMAGE"}
	for _, s := range server.AllSettings() {
		if s.Env != "" {
			out = append(out, s.Env)
		}
	}
	return out
}

// strangeVariables says of every variable that is set and looks like one of ours that it does nothing, with the name that was most likely
// meant. An empty one counts as absent. What Kubernetes sets for a service of the name unstuck is left out, and so is what a worker
// sets for its commands.
func (d *door) strangeVariables() (out []string) {
	if d.Environ == nil {
		return nil
	}
	known := variables()
	for _, pair := range d.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "UNSTUCK_") || value == "" || slices.Contains(known, name) || ofOthers(name, value) || d.Getenv("UNSTUCK_EXECUTION_ID") != "" {
			continue
		}
		hint := "`unstuck config` lists all."
		if near := nearest(name, known); near != "" {
			hint = "Did you mean " + near + "?"
		}
		out = append(out, fmt.Sprintf("%s is set, but there is no such setting: it changes nothing. %s", name, hint))
	}
	slices.Sort(out)
	return out
}

// ofOthers says whether a variable is one of those that Kubernetes and links of containers make from the name of a service.
func ofOthers(name, value string) bool {
	rest := strings.TrimPrefix(name, "UNSTUCK_")
	return strings.HasPrefix(rest, "SERVICE_") || strings.HasPrefix(rest, "PORT_") || rest == "PORT" && strings.Contains(value, "://")
}
