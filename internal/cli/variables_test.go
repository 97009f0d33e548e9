package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// TestStrangeVariables: a variable of ours that is misspelt is told by serve, config and doctor, with the name that was meant; those of
// ours and of others are not.
func TestStrangeVariables(t *testing.T) {
	env := []string{
		"UNSTUCK_LISTN=127.0.0.1:0", "UNSTUCK_SMTP=mail", "UNSTUCK_BANANA=1", "UNSTUCK_EMPTY=", "UNSTUCK_API_KEY=unstuck_x", "UNSTUCK_WEBHOOK_SECRET=whsec_x",
		"UNSTUCK_SERVICE_HOST=10.0.0.1", "UNSTUCK_PORT=tcp://10.0.0.1:8080", "UNSTUCK_PORT_8080_TCP_PROTO=tcp", "PATH=/bin", "UNSTUCK_LOG_LEVEL=info", "UNSTUCK_LISTEN=127.0.0.1:0",
	}
	want := []string{
		"UNSTUCK_BANANA is set, but there is no such setting: it changes nothing. `unstuck config` lists all.",
		"UNSTUCK_LISTN is set, but there is no such setting: it changes nothing. Did you mean UNSTUCK_LISTEN?",
		"UNSTUCK_SMTP is set, but there is no such setting: it changes nothing. Did you mean UNSTUCK_SMTP_HOST?",
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for command, ctx := range map[string]context.Context{"config": t.Context(), "doctor": t.Context(), "serve": ended} {
		var said bytes.Buffer
		Run(ctx, Env{
			Getenv: lookup(env), Environ: func() []string { return env }, Home: t.TempDir(), Stdin: strings.NewReader(""), Stdout: &said, Stderr: &said, Now: time.Now, Zone: time.UTC,
		}, command)
		for _, sentence := range want {
			if strings.Count(said.String(), sentence) != 1 {
				t.Errorf("%s does not say once: %s\n%s", command, sentence, said.String())
			}
		}
		if n := strings.Count(said.String(), "there is no such setting"); n != len(want) {
			t.Errorf("%s tells %d variables:\n%s", command, n, said.String())
		}
	}
	handler := Env{Getenv: lookup([]string{"UNSTUCK_EXECUTION_ID=x"}), Environ: func() []string { return []string{"UNSTUCK_EXECUTION_ID=x", "UNSTUCK_TASK=y"} }}
	if told := newDoor(handler).strangeVariables(); told != nil {
		t.Errorf("in a command of a worker: %v", told)
	}
}

// lookup reads a list of variables.
func lookup(env []string) func(string) string {
	return func(name string) string {
		for _, pair := range env {
			if value, ok := strings.CutPrefix(pair, name+"="); ok {
				return value
			}
		}
		return ""
	}
}
