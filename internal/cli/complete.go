package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"unstuck/internal/op"
)

// patience is how long the shell waits for the server when it completes a word.
const patience = time.Second

// complete lets the shell complete the arguments and flags of an operation: names of objects as the server knows them, scopes,
// permissions, and words of enumerations.
func (d *door) complete(cmd *cobra.Command, o *op.Operation, w wording) {
	fields, _ := w.argsOf(o)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(fields) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return d.candidates(cmd.Context(), w.refOf(o, fields[len(args)]), fields[len(args)]), cobra.ShellCompDirectiveNoFileComp
	}
	for _, f := range o.Fields() {
		name := w.flagOf(f)
		if name == "" || cmd.Flags().Lookup(name) == nil {
			continue
		}
		_ = cmd.RegisterFlagCompletionFunc(name, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return d.candidates(cmd.Context(), w.refOf(o, f), f), cobra.ShellCompDirectiveNoFileComp
		}) // it fails only when it is called twice
	}
}

// candidates are the values that an input may take, as far as they are known. When the server does not tell, there are none.
func (d *door) candidates(ctx context.Context, kind object, f op.Field) []string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out []string
	switch {
	case len(f.Enum) > 0:
		return f.Enum
	case kind == aKey:
		keys, _ := d.allKeys(ctx, inputs{})
		for _, k := range keys {
			if k.Status != "revoked" {
				out = append(out, k.lastEight()+"\t"+k.Name)
			}
		}
	case kind == aCue:
		page, _ := get[cuePage](ctx, d, "cue.list", inputs{"limit": int64(100)})
		for _, c := range page.Cues {
			out = append(out, c.Name)
		}
	case kind == anExec:
		page, _ := get[executionPage](ctx, d, "execution.list", inputs{"limit": int64(100)})
		for _, e := range page.Executions {
			out = append(out, eight(e.ID)+"\t"+e.CueName+", "+e.Status)
		}
	case kind == anAlert:
		page, _ := get[alertPage](ctx, d, "alert.list", inputs{"limit": int64(100)})
		for _, v := range page.Alerts {
			out = append(out, eight(v.ID)+"\t"+v.Title)
		}
	case kind == aWorker:
		list, _ := get[workerList](ctx, d, "worker.list", nil)
		for _, w := range list.Workers {
			out = append(out, w.WorkerID)
		}
	case kind == aMember:
		page, _ := get[memberPage](ctx, d, "member.list", nil)
		for _, m := range page.Members {
			out = append(out, m.Email)
		}
	case f.Name == "scope", f.Name == "permissions", f.Name == "add_permissions", f.Name == "permission":
		list, _ := get[scopeList](ctx, d, "scope.list", nil)
		for _, s := range list.Scopes {
			if f.Name == "scope" {
				out = append(out, s.Name+"\t"+s.Can)
			}
		}
		for _, p := range list.Permissions {
			if f.Name != "scope" {
				out = append(out, p.Name+"\t"+p.Words)
			}
		}
	}
	return out
}
