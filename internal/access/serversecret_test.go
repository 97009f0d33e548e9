package access

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestServerSecretsAreRead(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("s", 32)
	for _, test := range []struct {
		text    string
		numbers []uint16
		fault   string
	}{
		{long, []uint16{1}, ""},
		{"1:" + long + "\n2:" + long + "x\n", []uint16{1, 2}, ""},
		{" 3:" + long + " ,\r\n\n 7:" + long + "x", []uint16{3, 7}, ""},
		{"", nil, "no server secret"},
		{"\n , \n", nil, "no server secret"},
		{"1:short", nil, "server secret 1 is too short"},
		{"x:" + long, nil, "NUMBER:SECRET"},
		{"0:" + long, nil, "NUMBER:SECRET"},
		{"65536:" + long, nil, "NUMBER:SECRET"},
		{"2:" + long + "\n1:" + long, nil, "stands after 2"},
		{"1:" + long + "\n1:" + long, nil, "stands after 1"},
	} {
		list, err := ServerSecrets(test.text).parse()
		if test.fault != "" {
			if err == nil || !strings.Contains(err.Error(), test.fault) || strings.Contains(err.Error(), long) {
				t.Errorf("%q: %v", test.text, err)
			}
			continue
		}
		var numbers []uint16
		for _, n := range list {
			numbers = append(numbers, n.number)
		}
		if diff := cmp.Diff(test.numbers, numbers); diff != "" || err != nil {
			t.Errorf("%q: %v %s", test.text, err, diff)
		}
	}
	one := ServerSecrets(long) // as somebody wrote it, without number and line feed
	two, err := one.next()
	if err != nil {
		t.Fatal(err)
	}
	if list, err := two.parse(); err != nil || len(list) != 2 || list[1].number != 2 {
		t.Errorf("%v", err)
	}
	if _, err := ServerSecrets("65535:" + long).next(); err == nil {
		t.Error("there was a number after the last")
	}
}

func TestSecretFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := ReadSecretFile(dir, false); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("%v", err)
	}
	first, err := ReadSecretFile(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ReadSecretFile(dir, true)
	if err != nil || again != first {
		t.Errorf("it was made twice: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "secret")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("it left %v behind", list)
	}
	if err := WriteSecretFile(filepath.Join(dir, "nowhere"), first); err == nil {
		t.Error("it was written nowhere")
	}
}

// TestSealed: what is sealed opens again under the same secret only, and not when a bit of it changed.
func TestSealed(t *testing.T) {
	t.Parallel()
	first := NewServerSecret()
	s, err := newSealer(first)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := newSealer(NewServerSecret())
	rapid.Check(t, func(t *rapid.T) {
		text := SecretText(rapid.String().Draw(t, "text"))
		box := s.seal(text)
		if got, err := s.open(box); err != nil || got != text {
			t.Fatalf("%v", err)
		}
		if _, err := other.open(box); err == nil {
			t.Fatal("another server opened it")
		}
		i := rapid.IntRange(0, len(box)-1).Draw(t, "byte")
		box[i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := s.open(box); err == nil {
			t.Fatal("it was changed and opened all the same")
		}
		if _, err := s.open(box[:i]); err == nil {
			t.Fatal("it was cut and opened all the same")
		}
	})
	box := s.seal("whsec_1")
	next, _ := first.next()
	if err := s.load(next); err != nil {
		t.Fatal(err)
	}
	if got, err := s.open(box); err != nil || got != "whsec_1" {
		t.Errorf("after a rotation: %v", err)
	}
}

// TestServerSecretRotation: keys go on working, are hashed under the new secret at their next use, and the status says how many are not.
func TestServerSecretRotation(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, _ := w.key("worker")
		idle, _ := w.key("worker")
		gone, goneID := w.key("worker")
		w.must(w.admin, "key.revoke", in{"id": goneID})
		hook := w.must(w.admin, "webhook_secret.get", nil)
		want := func(status SecretStatus, err error, wanted string) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wanted, text(status)); diff != "" {
				t.Error(diff)
			}
		}
		status, err := w.a.SecretStatus(t.Context())
		want(status, err, "newest 1: 1×3")
		status, err = w.a.RotateServerSecret(t.Context())
		want(status, err, "newest 2: 1×3")
		w.must(secret, "execution.claim", nil)
		status, err = w.a.SecretStatus(t.Context())
		want(status, err, "newest 2: 1×2 2×1")
		made, _ := w.key("worker") // which uses the admin's key
		status, err = w.a.SecretStatus(t.Context())
		want(status, err, "newest 2: 1×1 2×3")
		w.stop()
		w.open()
		for _, s := range []string{secret, idle, made, w.admin} {
			w.must(s, "key.self", nil)
		}
		w.refused(KeyRevoked, gone, "key.self", nil)
		status, err = w.a.SecretStatus(t.Context())
		want(status, err, "newest 2: 2×4")
		if diff := cmp.Diff(hook, w.must(w.admin, "webhook_secret.get", nil)); diff != "" {
			t.Error(diff)
		}
		if c := w.must(w.admin, "audit.check", nil); c["ok"] != true {
			t.Errorf("%v", c)
		}
		if row := w.done("server_secret.rotate"); row.ObjectID != "2" {
			t.Errorf("%+v", row)
		}
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				if _, err := w.a.RotateServerSecret(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		w.stop()
		w.open()
		status, err = w.a.SecretStatus(t.Context())
		want(status, err, "newest 6: 2×4")
	})
}

// text is a status in short: "newest 2: 1×3 2×1".
func text(s SecretStatus) string {
	out := fmt.Sprintf("newest %d:", s.Newest)
	for _, e := range s.Epochs {
		out += fmt.Sprintf(" %d×%d", e.Number, e.Keys)
	}
	return out
}

// TestWrongServerSecret does not start: neither with another, nor with one missing, nor with none.
func TestWrongServerSecret(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		if _, err := w.a.RotateServerSecret(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.stop()
		right, err := ReadSecretFile(w.dir, false)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitAfter(string(right), "\n")
		for name, wrong := range map[string]ServerSecrets{
			"another": NewServerSecret(), "the old one only": ServerSecrets(lines[0]), "the new one only": ServerSecrets(lines[1]),
			"one character changed": right[:10] + ServerSecrets(map[bool]string{true: "1", false: "0"}[right[10] == '0']) + right[11:],
		} {
			if err := WriteSecretFile(w.dir, wrong); err != nil {
				t.Fatal(err)
			}
			if err := w.tryOpen(); !errors.Is(err, ErrWrongSecret) {
				t.Errorf("%s: %v", name, err)
			} else {
				mustNotLeak(t, err.Error(), string(wrong))
			}
		}
		if err := os.Remove(filepath.Join(w.dir, "secret")); err != nil {
			t.Fatal(err)
		}
		if err := w.tryOpen(); err == nil {
			t.Error("it started without a secret")
		}
		if err := WriteSecretFile(w.dir, right); err != nil {
			t.Fatal(err)
		}
		w.open()
		w.must(w.admin, "key.self", nil)
		w.a.SecretFromEnv = true
		if _, err := w.a.RotateServerSecret(t.Context()); err == nil || !strings.Contains(err.Error(), "UNSTUCK_SECRET") {
			t.Errorf("%v", err)
		}
	})
}
