package alert

import (
	"strings"
	"unicode"

	"unstuck/internal/op"
)

// How much chats take. Slack shows 4,000 characters of "text" well, Mattermost 4,000 by default; Discord refuses a "content" of more than 2,000.
const (
	textMost    = 3900
	contentMost = 1900
)

// body is what an alert's webhook gets (CueAPI wire contract 2.7). Beside the contract's fields it has the title, and the words as chats
// read them: text for Slack and Mattermost, content for Discord.
type body struct {
	AlertID     string        `json:"alert_id"`
	AlertType   string        `json:"alert_type"`
	CreatedAt   op.OffsetTime `json:"created_at"`
	CueID       *string       `json:"cue_id"`
	CueName     *string       `json:"cue_name"`
	ExecutionID *string       `json:"execution_id"`
	KeyID       *string       `json:"key_id"`
	Message     string        `json:"message"`
	Metadata    op.Object     `json:"metadata"`
	Severity    string        `json:"severity"`
	Title       string        `json:"title"`
	Text        string        `json:"text"`
	Content     string        `json:"content"`
	Mentions    mentions      `json:"allowed_mentions"` // Discord: whatever the words hold, nobody is called by them
}

type mentions struct {
	Parse []string `json:"parse"`
}

func bodyOf(o *Object) body {
	return body{
		AlertID: o.ID, AlertType: o.AlertType, CreatedAt: op.OffsetTime(o.CreatedAt), CueID: o.CueID, CueName: o.CueName, ExecutionID: o.ExecutionID,
		KeyID: o.KeyID, Message: o.Message, Metadata: o.Metadata, Severity: o.Severity, Title: o.Title,
		Text: chat(o, textMost, slackRune), Content: chat(o, contentMost, plainRune), Mentions: mentions{Parse: []string{}},
	}
}

// plain are the words with nothing of what others wrote that moves a cursor, changes colours or turns the direction around: they are
// read in chats, in mail and on terminals. The title is one line.
func (w Words) plain() Words {
	harmless := func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\r', r == '\t', r == '\u2028', r == '\u2029':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return '\ufffd'
		}
		return r
	}
	return Words{Title: strings.ReplaceAll(strings.Map(harmless, w.Title), "\n", " "), Body: strings.Map(harmless, w.Body)}
}

// quiet is a title, which stands outside the block of code, in a form that chats take for words alone: nobody's name is called by it
// (Mattermost would call a whole channel), and no text hides an address (Mattermost, Discord).
func quiet(title string) string {
	return strings.NewReplacer("@", "@\u200b", "](", "]\u200b(").Replace(title)
}

// slackRune writes a character as Slack wants it, so that no text of others becomes a link or calls everybody (Mattermost shows the same).
func slackRune(r rune) string {
	switch r {
	case '&':
		return "&amp;"
	case '<':
		return "&lt;"
	case '>':
		return "&gt;"
	}
	return string(r)
}

func plainRune(r rune) string { return string(r) }

// chat is an alert for a chat: the title, and below it the rest in a block of code, where columns stay columns and nothing is markup.
// It is at most so long, as JavaScript counts; of a longer one the end is left out.
func chat(o *Object, most int, write func(rune) string) string {
	_, rest, _ := strings.Cut(o.Text, "\n\n")
	end, fence := "", "\n```\n"
	if strings.TrimSpace(rest) == "" {
		fence = ""
	} else {
		end = "\n```"
	}
	more := "…\n```\nunstuck alerts get " + o.ID
	var b strings.Builder
	used, kept := 0, 0
	add := func(s string) bool {
		for _, r := range s {
			w := write(r)
			n := len(w)
			if w == string(r) {
				if n = 1; r > 0xffff {
					n = 2
				}
			}
			if used+n > most {
				return false
			}
			b.WriteString(w)
			if used += n; used <= most-len(more) {
				kept = b.Len()
			}
		}
		return true
	}
	unfenced := strings.NewReplacer("```", "'''")
	if add(unfenced.Replace(quiet(cut(o.Title, 300)))) && add(fence) && add(unfenced.Replace(strings.TrimRight(strings.TrimLeft(rest, "\n"), " \n"))) && add(end) {
		return b.String()
	}
	return b.String()[:kept] + more
}

// letter is the text of an alert's message by mail; its subject is the title.
func letter(o *Object) string {
	text := o.Text + "\n"
	if o.AlertType != testType && o.RecoveredAt == nil {
		text += "\nI am on it\n  unstuck alerts ack " + o.ID + "\n"
	}
	return text
}
