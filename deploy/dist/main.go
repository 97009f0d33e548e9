// Command dist builds what is released: for every system an archive with the program and what belongs to it, a bill of materials
// (CycloneDX), and SHA256SUMS over all. Two runs on one commit give the same bytes: times are the commit's, paths are cut, order is fixed.
//
//	go run ./deploy/dist [-out dist] [-targets linux/amd64,…] [-sbom PROGRAM]
package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"unstuck/internal/server"
)

const allTargets = "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64"

// files are what lies beside the program in an archive, by their places in the repository, which help and texts name; folders with all
// that is in them. compose.yaml builds from a clone, so it is in none.
var files = []string{"LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "deploy/unstuck.service", "deploy/grafana", "deploy/prometheus", "docs/examples", "docs/help", "docs/settings.md"}

func main() {
	out := flag.String("out", "dist", "folder for what is made; is emptied first")
	targets := flag.String("targets", allTargets, "systems to build for, or host")
	sbom := flag.String("sbom", "cyclonedx-gomod", "the program that writes the bill of materials")
	flag.Parse()
	log.SetFlags(0)
	if err := run(*out, strings.ReplaceAll(*targets, "host", runtime.GOOS+"/"+runtime.GOARCH), *sbom); err != nil {
		log.Fatalf("Not made: %v", err)
	}
}

func run(out, targets, sbom string) error {
	at, err := commitTime()
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(out), os.MkdirAll(out, 0o755)); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "unstuck-dist-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }() // what is left of it is in the folder for temporary files
	shared, err := sharedFiles(work)
	if err != nil {
		return err
	}
	for target := range strings.SplitSeq(targets, ",") {
		system, processor, ok := strings.Cut(target, "/")
		if !ok {
			return fmt.Errorf("%q is no target; write linux/amd64", target)
		}
		if err := release(out, work, system, processor, sbom, shared, at); err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
	}
	return sums(out)
}

// release builds for one system and packs it.
func release(out, work, system, processor, sbom string, shared []entry, at time.Time) error {
	name := fmt.Sprintf("unstuck-%s-%s-%s", server.Version, system, processor)
	program := "unstuck"
	if system == "windows" {
		program += ".exe"
	}
	built := filepath.Join(work, name, program)
	if err := build(built, system, processor); err != nil {
		return err
	}
	bill := filepath.Join(out, name+".cdx.json")
	if err := command(nil, sbom, "bin", "-json", "-noserial", "-notimestamp", "-output", bill, built); err != nil {
		return fmt.Errorf("write the bill of materials: %w", err)
	}
	content, err := os.ReadFile(built)
	if err != nil {
		return err
	}
	entries := append([]entry{{name: program, mode: 0o755, content: content}}, shared...)
	pack, suffix := tarball, ".tar.gz"
	if system == "windows" {
		pack, suffix = zipped, ".zip"
	}
	var archive bytes.Buffer
	if err := pack(&archive, name, entries, at); err != nil {
		return err
	}
	log.Printf("%s%s  %.1f MB", name, suffix, float64(archive.Len())/1e6)
	return os.WriteFile(filepath.Join(out, name+suffix), archive.Bytes(), 0o644)
}

func build(path, system, processor string) error {
	env := []string{"GOOS=" + system, "GOARCH=" + processor, "CGO_ENABLED=0", "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS="}
	if err := command(env, "go", "build", "-trimpath", "-buildvcs=true", "-ldflags=-s -w -buildid=", "-o", path, "./cmd/unstuck"); err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(path)
	if err == nil && !slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "vcs.revision" }) {
		err = errors.New("the program does not know its commit: Go finds none in a git worktree, so make it in a clone")
	}
	return err
}

// sharedFiles are the files of every archive: those of the repository, and completions for shells, which the program writes itself.
func sharedFiles(work string) ([]entry, error) {
	var out []entry
	for _, root := range files {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			out = append(out, entry{name: filepath.ToSlash(path), mode: 0o644, content: content})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	here := filepath.Join(work, "here", "unstuck")
	if err := build(here, runtime.GOOS, runtime.GOARCH); err != nil {
		return nil, err
	}
	for _, c := range [][2]string{{"bash", "unstuck.bash"}, {"zsh", "_unstuck"}, {"fish", "unstuck.fish"}, {"powershell", "unstuck.ps1"}} {
		text, err := exec.Command(here, "completion", c[0]).Output()
		if err != nil {
			return nil, fmt.Errorf("write the completion for %s: %w", c[0], err)
		}
		out = append(out, entry{name: "completions/" + c[1], mode: 0o644, content: text})
	}
	return out, nil
}

// commitTime is SOURCE_DATE_EPOCH, or when the commit was made.
func commitTime() (time.Time, error) {
	said := os.Getenv("SOURCE_DATE_EPOCH")
	if said == "" {
		text, err := exec.Command("git", "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("ask git for the time of the commit, which SOURCE_DATE_EPOCH can say too: %w", err)
		}
		said = strings.TrimSpace(string(text))
	}
	seconds, err := strconv.ParseInt(said, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q; write seconds since 1970", said)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// sums writes SHA256SUMS over all that was made, as `sha256sum --check` reads it.
func sums(out string) error {
	made, err := os.ReadDir(out)
	if err != nil {
		return err
	}
	slices.SortFunc(made, func(a, b os.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	var text strings.Builder
	for _, m := range made {
		content, err := os.ReadFile(filepath.Join(out, m.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(content), m.Name())
	}
	return os.WriteFile(filepath.Join(out, "SHA256SUMS"), []byte(text.String()), 0o644)
}

// command runs a program in this environment and a few variables more; what it says is shown when it fails.
func command(env []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, said.String())
	}
	return nil
}
