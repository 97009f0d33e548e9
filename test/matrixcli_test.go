package test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"unstuck/internal/cli"
	"unstuck/internal/op"
	"unstuck/internal/testkit"
)

// TestMatrixCLI is TestMatrix through the command line: the same keys, the same operations, the same answers.
func TestMatrixCLI(t *testing.T) {
	t.Parallel()
	w := newWorld(quick(t, ""))
	cells := 0
	for _, k := range w.subjects(t) {
		answers := w.answers(t, k.id)
		for _, o := range inOrder(w.s) {
			in := w.inputs(o, k.who)
			if answers[o.Name] != "no" {
				w.prepare(o, in)
			}
			r := w.onTheCommandLine(t, k.secret, o, in)
			checkCell(t, k.name+", "+o.Name, answers[o.Name], r)
			if secret := r.Str("api_key"); o.Name == "auth_key.regenerate" && secret != "" {
				k.secret = secret
			}
			cells++
		}
		w.s.Clock.Add(400e9) // public operations are limited by address, the echo sink to ten an hour
	}
	t.Logf("%d cells", cells)
}

// onTheCommandLine calls an operation by `unstuck call` and reads what is printed as the answer that it is. The exit code must fit.
func (w *world) onTheCommandLine(t *testing.T, key string, o *op.Operation, in obj) testkit.Reply {
	t.Helper()
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	env := map[string]string{"UNSTUCK_URL": w.s.URL, "UNSTUCK_API_KEY": key}
	code := cli.Run(context.Background(), cli.Env{
		Getenv: func(name string) string { return env[name] }, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
		Now: w.s.Clock.Now, Zone: time.UTC,
	}, "call", o.Name, string(text), "--json", "--yes")
	r := testkit.Reply{Status: o.Status, Body: bytes.TrimSpace(stdout.Bytes())}
	_ = json.Unmarshal(r.Body, &r.JSON) // an answer without a body is none
	if e, ok := r.JSON["error"].(obj); ok {
		status, _ := e["status"].(float64)
		r.Status = int(status)
	}
	if want := exitCode(r); code != want {
		t.Errorf("%s %s ended with %d, not with %d: %s%s", o.Name, text, code, want, stdout.String(), stderr.String())
	}
	return r
}

// exitCode is how the command line ends for an answer.
func exitCode(r testkit.Reply) int {
	switch {
	case r.Status < 300:
		return 0
	case r.Status == 401:
		return 3
	case r.Status == 429 || strings.HasSuffix(r.Code(), "_limit_exceeded"):
		return 8
	case r.Status == 403:
		return 4
	case r.Status == 404 || r.Status == 410:
		return 5
	case r.Status == 409:
		return 6
	case r.Status >= 500:
		return 1
	}
	return 2
}
