package server

import (
	"context"
	"fmt"
	"strings"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
)

// announce says what started: on a terminal in a few lines that tell what to do next, elsewhere as one line of the log. The first
// start makes a workspace and, where somebody can see it, its first key.
func (s *Server) announce(ctx context.Context, io Streams, addr string, began time.Time) error {
	show := io.ErrTTY || s.PrintFirstKey
	key, first, err := s.access.FirstRun(ctx, s.AdminEmail, show)
	if err != nil {
		return fmt.Errorf("first start: %w", err)
	}
	if i := strings.LastIndexByte(addr, ':'); strings.HasSuffix(s.Listen, ":0") { // the system chose the port
		s.Listen = strings.TrimSuffix(s.Listen, "0") + addr[i+1:]
	}
	if !show {
		s.logStart(first)
		return nil
	}
	b := &block{}
	if first {
		s.firstBlock(b, io, key)
	} else if err := s.laterBlock(ctx, b, io); err != nil {
		return err
	}
	b.line("%s ready in %.1f s · Ctrl-C stops it, nothing is lost", time.Now().In(io.Zone).Format("15:04:05"), time.Since(began).Seconds())
	if !first {
		b.cutEnd(" · Ctrl-C stops it, nothing is lost")
	}
	_, err = fmt.Fprint(io.Err, b.String())
	if err == nil && first && s.PrintFirstKey && !io.OutTTY {
		_, err = fmt.Fprintln(io.Out, key.Secret)
	}
	return err
}

func (s *Server) logStart(first bool) {
	attrs := []any{"address", s.url(), "data", s.Data}
	msg := "started"
	if first {
		msg = "first start"
		attrs = append(attrs, "first_key", "not made: output is not a terminal. Get one with: unstuck auth login --local --data "+s.Data)
	}
	s.deps.Log.Info(msg, attrs...)
}

// block is text in two columns.
type block struct{ strings.Builder }

func (b *block) line(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }

func (b *block) row(label, format string, args ...any) {
	b.line("  %-12s"+format, append([]any{label}, args...)...)
}

func (b *block) cutEnd(text string) {
	s := strings.TrimSuffix(b.String(), text+"\n")
	b.Reset()
	b.WriteString(s + "\n")
}

func (s *Server) title() string {
	t := "unstuck " + Version
	if s.Dev {
		t += " · development mode"
	}
	return t
}

func (s *Server) store() string {
	if s.db.Postgres() {
		return "PostgreSQL"
	}
	return "SQLite"
}

func (s *Server) firstBlock(b *block, io Streams, key access.NewKey) {
	reach := "only this machine can reach it"
	if err := (Settings{Listen: s.Listen}).checkListen(); err != nil {
		reach = "other machines can reach it"
	}
	kept := s.store() + "; kept between starts"
	if !s.Dev {
		kept += ". The server secret lies there too: back up both"
	}
	b.line("")
	b.line("  %s · first start: a new server was set up for you", s.title())
	b.line("")
	b.row("Address", "%-25s %s", s.url(), reach)
	b.row("Data", "%-25s %s", short(s.Data, io.Home), kept)
	b.row("Workspace", "%-25s plan self-hosted: no limits set", "default")
	if s.Dev {
		b.row("Open", "sign-up, callbacks to this machine and private networks (--dev)")
	}
	if io.ErrTTY || io.OutTTY || !s.PrintFirstKey {
		b.row("Your key", "%s", key.Secret)
	} else {
		b.row("Your key", "%s", "on standard output, the next line there")
	}
	b.row("", "Scope full: everything, also making and revoking other keys. Shown this once; only a hash is kept.")
	b.line("")
	data, url := s.hints()
	next := []string{"unstuck auth login"}
	if url != "" {
		next = append([]string{url}, next...)
	}
	if s.Dev {
		next = append([]string{`export PATH="$PWD/bin:$PATH"`}, next...)
	}
	b.line("  %-29s %s", "Next, in a second terminal:", strings.Join(next, "\n"+strings.Repeat(" ", 32)))
	b.line("  %-29s %s", "Closed this too early?", "unstuck auth login --local"+data+"     Trouble?   unstuck doctor"+data)
	b.line("")
}

// hints are what the next commands, all of them, need when the server is not where they look by themselves.
func (s *Server) hints() (data, url string) {
	if !strings.HasSuffix(s.Data, strings.TrimPrefix(defaultOf("data"), "~")) {
		data = " --data " + s.Data
	}
	if s.url() != "http://"+defaultOf("listen") {
		url = "export UNSTUCK_URL=" + s.url()
	}
	return data, url
}

func (s *Server) laterBlock(ctx context.Context, b *block, io Streams) error {
	names, err := s.workspaceLine(ctx)
	if err != nil {
		return err
	}
	b.line("")
	b.line("  %s", s.title())
	b.line("")
	b.row("Address", "%s", s.url())
	data := short(s.Data, io.Home)
	if at := s.lastStop(ctx); !at.IsZero() {
		data += " · last stopped " + day(at.In(io.Zone), time.Now().In(io.Zone))
	}
	b.row("Data", "%s", data)
	b.row("Workspace", "%s", names)
	if s.access.HeadsMissing() {
		b.row("Warning", "audit.heads was missing: rows cut off from the end of the audit log before this start would not be noticed")
	}
	b.line("")
	return nil
}

func day(t, now time.Time) string {
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return "today " + t.Format("15:04:05")
	}
	return t.Format("2 Jan 2006 15:04:05")
}

// workspaceLine names the first workspace with what it has, or says how many there are.
func (s *Server) workspaceLine(ctx context.Context) (string, error) {
	var line string
	err := s.db.View(ctx, func(tx *db.Tx) error {
		var n, keys, cues int64
		var name string
		if err := tx.Row("SELECT count(*), min(name) FROM workspaces").Scan(&n, &name); err != nil {
			return err
		}
		if err := tx.Row("SELECT count(*) FROM keys WHERE revoked_at IS NULL").Scan(&keys); err != nil {
			return err
		}
		if err := tx.Row("SELECT count(*) FROM cues").Scan(&cues); err != nil {
			return err
		}
		line = fmt.Sprintf("%s · %s, %s", name, plural(keys, "key"), plural(cues, "cue"))
		if n > 1 {
			line = fmt.Sprintf("%d workspaces · %s, %s", n, plural(keys, "key"), plural(cues, "cue"))
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("read what the server has: %w", err)
	}
	return line, nil
}

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
