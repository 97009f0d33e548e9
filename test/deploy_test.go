//go:build linux

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"unstuck/internal/server"
)

// shipped is a file of the repository.
func shipped(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// knownSettings fails the test for every variable of ours in a text that is no setting.
func knownSettings(t *testing.T, where string, names []string) {
	t.Helper()
	for _, name := range names {
		known := slices.ContainsFunc(server.AllSettings(), func(s server.Setting) bool { return s.Env == name })
		if !known && strings.HasPrefix(name, "UNSTUCK_") {
			t.Errorf("%s sets %s, which is no setting", where, name)
		}
	}
}

// TestServerUnit holds the unit of the server against systemd itself, where it is installed: it is understood, and it is safe as
// systemd counts exposure, from 0 (none) to 10.
func TestServerUnit(t *testing.T) {
	unit := shipped(t, "deploy/unstuck.service")
	for _, line := range regexp.MustCompile(`(?m)^Environment=(\w+)=`).FindAllStringSubmatch(unit, -1) {
		knownSettings(t, "the unit", line[1:])
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("CI must have systemd-analyze")
		}
		t.Skip("there is no systemd")
	}
	file := filepath.Join(t.TempDir(), "unstuck.service")
	if err := os.WriteFile(file, []byte(strings.Replace(unit, "/usr/local/bin/unstuck serve", binary(t)+" serve", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
	said := slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool { return !strings.Contains(line, "unstuck.service") })
	if len(said) > 0 || err != nil { // it only warns of a name that it does not know
		t.Errorf("systemd says: %v\n%s", err, out)
	}
	out, err = exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", file).CombinedOutput()
	exposure := regexp.MustCompile(`Overall exposure level for unstuck.service: ([0-9.]+)`).FindSubmatch(out)
	if exposure == nil {
		t.Fatalf("systemd says: %v\n%s", err, out)
	}
	if level, err := strconv.ParseFloat(string(exposure[1]), 64); err != nil || level > 2 {
		t.Errorf("the exposure is %s, want at most 2:\n%s", exposure[1], out)
	}
}

// composeFile is what compose.yaml says, as far as we look at it.
type composeFile struct {
	Services map[string]struct {
		Image       string
		Build       string
		Profiles    []string
		ReadOnly    bool     `yaml:"read_only"`
		CapDrop     []string `yaml:"cap_drop"`
		Environment map[string]string
		Volumes     []string
		Ports       []string
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		Networks    yaml.Node
	}
	Volumes  map[string]any
	Networks map[string]any
}

// TestCompose: compose.yaml names settings that there are, volumes that it declares and files that lie beside it; nobody reaches the
// server but through Caddy, whose address is the one that is trusted; every setting reaches the server from .env; and where Docker's own
// plugin is, that takes it.
func TestCompose(t *testing.T) {
	text := shipped(t, "deploy/compose.yaml")
	var c composeFile
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	ours, caddy := c.Services["unstuck"], c.Services["caddy"]
	for name, service := range c.Services {
		for variable := range service.Environment {
			knownSettings(t, name, []string{variable})
		}
		for _, v := range service.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, declared := c.Volumes[from]; strings.HasPrefix(from, "./") {
				shipped(t, filepath.Join("deploy", from))
			} else if !declared {
				t.Errorf("%s uses the volume %s, which is not declared", name, from)
			}
		}
		if (name == "caddy") != (len(service.Ports) > 0) {
			t.Errorf("%s has the ports %v", name, service.Ports)
		}
	}
	for _, used := range regexp.MustCompile(`\$\{(UNSTUCK_\w+)`).FindAllStringSubmatch(text, -1) {
		if used[1] != "UNSTUCK_IMAGE" {
			knownSettings(t, "compose.yaml", used[1:])
		}
	}
	if !ours.ReadOnly || !slices.Equal(ours.CapDrop, []string{"ALL"}) || caddy.DependsOn["unstuck"].Condition != "service_healthy" {
		t.Errorf("the server is %+v, Caddy waits for %v", ours, caddy.DependsOn)
	}
	var networks struct {
		Unstuck struct {
			Address string `yaml:"ipv4_address"`
		}
	}
	if err := caddy.Networks.Decode(&networks); err != nil || ours.Environment["UNSTUCK_TRUSTED_PROXIES"] != networks.Unstuck.Address+"/32" {
		t.Errorf("trusted is %s, Caddy is at %s (%v)", ours.Environment["UNSTUCK_TRUSTED_PROXIES"], networks.Unstuck.Address, err)
	}
	if !slices.Equal(c.Services["postgres"].Profiles, []string{"postgres"}) {
		t.Errorf("PostgreSQL starts in %v", c.Services["postgres"].Profiles)
	}
	allPassedOn(t, ours.Environment)
	serverTakes(t, ours.Environment)
	if exec.Command("docker", "compose", "version").Run() == nil { // without it, the above must do
		cmd := exec.Command("docker", "compose", "-f", "../deploy/compose.yaml", "config", "--quiet")
		cmd.Env = append(os.Environ(), "SITE_ADDRESS=example.com")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("docker compose: %v\n%s", err, out)
		}
	}
}

// notPassedOn are the settings that compose.yaml takes from nobody: the image says where to listen and where the data lies, Caddy has the
// certificate, and who may reach the server without TLS is Caddy alone.
var notPassedOn = []string{"UNSTUCK_LISTEN", "UNSTUCK_DATA", "UNSTUCK_DOMAIN", "UNSTUCK_TLS_CERT", "UNSTUCK_TLS_KEY", "UNSTUCK_PLAIN_HTTP"}

// allPassedOn fails for a setting of docs/settings.md that .env says and the server in the container would not hear of, and for a name
// that is no setting.
func allPassedOn(t *testing.T, environment map[string]string) {
	t.Helper()
	all := regexp.MustCompile(`(?:UNSTUCK|OTEL)_\w+`).FindAllString(shipped(t, "docs/settings.md"), -1)
	for name, value := range environment {
		if !slices.Contains(all, name) {
			t.Errorf("%s is no setting", name)
		}
		if !strings.HasPrefix(value, "${"+name+":-") && name != "UNSTUCK_TRUSTED_PROXIES" {
			t.Errorf("%s is %s, whatever .env says", name, value)
		}
	}
	for _, name := range all {
		if _, passed := environment[name]; passed == slices.Contains(notPassedOn, name) {
			t.Errorf("%s is passed on: %t", name, passed)
		}
	}
}

// serverTakes holds values of compose.yaml, with nothing set outside, and those of the image, against the settings themselves.
func serverTakes(t *testing.T, environment map[string]string) {
	t.Helper()
	env := map[string]string{}
	for _, line := range regexp.MustCompile(`(\w+)=(\S+)`).FindAllStringSubmatch(regexp.MustCompile(`(?m)^ENV .*`).FindString(shipped(t, "Dockerfile")), -1) {
		env[line[1]] = line[2]
	}
	for name, value := range environment {
		inner := regexp.MustCompile(`\$\{\w+:-([^{}]*)\}`)
		env[name] = inner.ReplaceAllString(inner.ReplaceAllString(value, "$1"), "$1")
	}
	set, err := server.ReadSettings(func(name string) (string, bool) { return env[name], env[name] != "" }, nil, "/tmp")
	if err != nil || set.Data != "/data" || set.Listen != "0.0.0.0:8080" {
		t.Errorf("the server would read %+v, %v", set, err)
	}
	for _, f := range server.Doctor(t.Context(), set, server.Look{Quick: true})[:2] { // where it listens, and where callbacks may lead
		if f.Err != nil {
			t.Errorf("%s: %v", f.What, f.Err)
		}
	}
}
