package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"unstuck/internal/op"
)

// callCommand is `unstuck call`: any operation by its name, with its inputs as they stand on the wire.
func (d *door) callCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "call OPERATION [INPUT]", GroupID: "you", Short: "Call any operation by its name, with its inputs as JSON",
		Long: "Calls an operation by its name. INPUT is a JSON object with its inputs, those of the path and the query too; @FILE reads it from\n" +
			"a file, - from standard input. The answer is printed as it came. `unstuck keys access --all` lists the operations.",
		Example: "  unstuck call cue.list '{\"status\":\"paused\"}'\n  unstuck call key.get '{\"id\":\"key_01k9x2m4q7ab\"}'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return nil
			}
			return exactArgs("OPERATION", "INPUT")(cmd, args)
		},
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if len(args) == 0 {
			for _, o := range d.set.All() {
				names = append(names, o.Name+"\t"+o.Summary())
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o := d.findOperation(args[0])
		if o == nil {
			return usage("There is no operation %q. Write it like cue.delete; unstuck keys access --all lists them.", args[0])
		}
		r := &run{door: d, ctx: cmd.Context(), op: o, flags: cmd.Flags(), path: cmd.CommandPath(), args: args, in: inputs{}, typed: map[string]string{}}
		if len(args) == 2 {
			text, err := d.readJSON(args[1])
			if err != nil {
				return usage("INPUT: %v", err)
			}
			if r.in, err = wireInputs(o, text); err != nil {
				return err
			}
		}
		if err := r.confirm(); err != nil {
			return err
		}
		if o.Streams() {
			d.flags.json = true
			return watch(r)
		}
		a, err := r.call()
		return firstErr(err, func() error { return r.raw(a) })
	}
	return cmd
}

// wireInputs reads the inputs of an operation from a JSON object. Those that do not travel in the body become text; those that the
// operation does not know are sent in its body, so that the server says so.
func wireInputs(o *op.Operation, text json.RawMessage) (inputs, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil || all == nil {
		return nil, usage("INPUT is a JSON object: {\"id\":\"…\"}")
	}
	in := inputs{}
	for name, raw := range all {
		in[name] = raw
	}
	for _, f := range o.Fields() {
		raw, ok := all[f.Name]
		if !ok || f.In == op.InBody {
			continue
		}
		in[f.Name] = plainText(raw)
	}
	return in, nil
}

// plainText is a JSON value as it stands in a path, a query or a header.
func plainText(raw json.RawMessage) any {
	var s string
	if json.Unmarshal(raw, &s) == nil && !bytes.Equal(raw, []byte("null")) {
		return s
	}
	if list, ok := elements(raw); ok {
		out := []string{}
		for _, e := range list {
			out = append(out, fmt.Sprint(plainText(e)))
		}
		return out
	}
	return strings.TrimSpace(string(raw))
}
