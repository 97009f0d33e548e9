package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestOnlyTheCommandThatRunsIsCompleted: whatever way a command is named, it has all its flags; others are not made.
func TestOnlyTheCommandThatRunsIsCompleted(t *testing.T) {
	whole := newDoor(Env{})
	all := whole.root()
	whole.furnishAll()
	for cmd := range whole.later {
		words := strings.Fields(strings.TrimPrefix(cmd.CommandPath(), "unstuck "))
		ways := [][]string{words, {"help"}, {"__complete"}, {"--url", "http://127.0.0.1:1"}, {"--key-file", "serve", "-q", "--json"}}
		for i, way := range ways[1:] {
			ways[i+1] = append(slices.Clone(way), words...)
		}
		if len(words) > 1 {
			ways = append(ways, []string{words[0], "--scope", "full", words[1]})
		}
		for _, args := range ways {
			d := newDoor(Env{})
			root := d.root()
			d.furnish(args)
			have, _, _ := root.Find(words)
			want, _, _ := all.Find(words)
			if h, w := flagNames(have), flagNames(want); have.UseLine() != want.UseLine() || !slices.Equal(h, w) {
				t.Errorf("unstuck %s knows %s %v, want %s %v", strings.Join(args, " "), have.UseLine(), h, want.UseLine(), w)
			}
		}
	}
	d := newDoor(Env{})
	root := d.root()
	d.furnish([]string{"keys", "create", "x"})
	if other, _, _ := root.Find([]string{"cues", "create"}); other.LocalNonPersistentFlags().HasFlags() {
		t.Error("`unstuck keys create` makes the flags of `unstuck cues create`, too")
	}
}

func flagNames(cmd *cobra.Command) (names []string) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	slices.Sort(names)
	return names
}
