//go:build interop && linux

package interop

import (
	"strings"
	"testing"
)

// TestSDK runs every scenario of sdk.py, each on a server of its own.
func TestSDK(t *testing.T) {
	names := launch(t, nil, venv("sdk", "python"), "sdk.py").shown()
	if code := names.wait(patience); code != 0 {
		t.Fatalf("sdk.py ended with status %d", code)
	}
	scenarios := strings.Fields(names.output.String())
	if len(scenarios) == 0 {
		t.Fatal("sdk.py has no scenarios")
	}
	for _, name := range scenarios {
		t.Run(name, func(t *testing.T) {
			s := serve(t, "--dev")
			run := launch(t, []string{"UNSTUCK_URL=" + s.url, "UNSTUCK_KEY=" + s.key}, venv("sdk", "python"), "sdk.py", name).shown()
			if code := run.wait(patience); code != 0 {
				t.Fatalf("the scenario ended with status %d", code)
			}
		})
	}
}
