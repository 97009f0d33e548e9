package worker

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestFill(t *testing.T) {
	p := readPayload([]byte(`{"s":"a b","n":1.50,"big":12345678901234567890,"t":true,"z":null,"o":{"p":{"q":"deep"},"l":[1,"é"]},"nul":"a\u0000b"}`))
	for text, want := range map[string]string{
		"{{ payload.s }}|{{s}}|{{  payload.s}}": "a b|a b|a b",
		"{{ payload.n }} {{ payload.big }}":     "1.50 12345678901234567890",
		"{{ payload.t }}{{ payload.z }}":        "True",
		"{{ payload.o.p.q }}":                   "deep",
		"{{ payload.o }}":                       `{"l": [1, "\u00e9"], "p": {"q": "deep"}}`,
		"{{ payload.none.x }}{{ payload.s.x }}": "",
		"{{ payload.nul }}":                     "a\uFFFDb",
		"no place { {s} }":                      "no place { {s} }",
	} {
		if got := p.fill(text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if got := readPayload([]byte(`[1]`)).fill("<{{ payload.a }}>"); got != "<>" {
		t.Errorf("of a list: %q", got)
	}
}

// TestFillCommand: whatever a value is, in whatever quotes its place stands, a real shell hands it on as it is.
func TestFillCommand(t *testing.T) {
	dir := t.TempDir()
	commands := []string{
		`printf %s "{{ payload.v }}"`,
		`printf %s '{{ payload.v }}'`,
		`printf %s ""'{{ payload.v }}'""`,
		`printf %s "$(printf %s "{{ payload.v }}")"`,
		`printf %s "$(printf %s '{{ payload.v }}')"`,
		"printf %s \"`printf %s '{{ payload.v }}'`\"",
		`printf %s "it's '' $((1+1)) {{ payload.v }}" | tail -c +11`,
		`# it's a "comment` + "\n" + `printf %s "{{ payload.v }}"`,
		`x=\'; printf %s "{{ payload.v }}"`,
		`(printf %s "{{ payload.v }}")`,
		`case "{{ payload.v }}" in *) printf %s '{{ payload.v }}';; esac`,
	}
	hostile := rapid.StringOfN(rapid.SampledFrom([]rune("a'\"`$()\\;&|<>#!*~{} \té\nX")), 0, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		value := hostile.Draw(t, "value") + "!" // a substitution drops the newlines at its end
		raw, err := json.Marshal(map[string]string{"v": value})
		if err != nil {
			t.Fatal(err)
		}
		command := rapid.SampledFrom(commands).Draw(t, "command")
		text, vars := readPayload(raw).fillCommand(command)
		cmd := exec.Command("sh", "-c", text)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), vars...)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != value {
			t.Fatalf("%s became %s: %q, want %q (%v)", command, text, out, value, err)
		}
	})
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("values left files: %v %v", left, err)
	}
}

func TestPythonJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":[1,"x,y:z"], "b" : {"c":null}}`: `{"a": [1, "x,y:z"], "b": {"c": null}}`,
		`"\"é\\,"`:                            `"\"\u00e9\\,"`,
		`"😀"`:                                 `"\ud83d\ude00"`,
		`{}`:                                  `{}`,
	} {
		if got := pythonJSON([]byte(in)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// TestOutput: what a handler says is cut by characters, and its memory is bounded whatever it prints.
func TestOutput(t *testing.T) {
	var p process
	for range 1000 {
		if n, err := p.out[0].Write([]byte(strings.Repeat("é", 100))); n != 200 || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := p.output(); got != strings.Repeat("é", outputMost) || len(p.out[0].kept) > 4*outputMost {
		t.Errorf("%d bytes of output, %d kept", len(got), len(p.out[0].kept))
	}
}
