package db

import (
	"fmt"
	"strings"
)

type kind int

const (
	other  kind = iota // one character of punctuation
	space              // white space and comments
	quoted             // 'text' or "name"
	word               // a keyword, name or number
	param              // ?1
	macro              // @list
)

type token struct {
	kind kind
	text string
}

// lex cuts an SQL text into tokens; joined, they are the text again. It knows as much of SQL as it takes to leave quoted text
// and comments alone.
func lex(text string) ([]token, error) {
	var tokens []token
	for rest := text; rest != ""; {
		k, n := next(rest)
		if n < 0 {
			return nil, fmt.Errorf("a quotation or comment never ends in %s", brief(text))
		}
		tokens = append(tokens, token{k, rest[:n]})
		rest = rest[n:]
	}
	return tokens, nil
}

// next tells the kind and length of the first token; -1 if it never ends.
func next(s string) (kind, int) {
	switch c := s[0]; {
	case c == '\'' || c == '"':
		return quoted, quotation(s)
	case strings.HasPrefix(s, "--"):
		if i := strings.IndexByte(s, '\n'); i >= 0 {
			return space, i + 1
		}
		return space, len(s)
	case strings.HasPrefix(s, "/*"):
		if i := strings.Index(s[2:], "*/"); i >= 0 {
			return space, i + 4
		}
		return space, -1
	case c == '?':
		return param, 1 + span(s[1:], isDigit)
	case c == '@':
		return macro, 1 + span(s[1:], isWord)
	case isWord(c):
		return word, span(s, isWord)
	case isSpace(c):
		return space, span(s, isSpace)
	}
	return other, 1
}

// quotation is the length of a quoted text, in which a doubled quotation mark stands for one.
func quotation(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] != s[0] {
			continue
		}
		if i+1 < len(s) && s[i+1] == s[0] {
			i++
			continue
		}
		return i + 1
	}
	return -1
}

func span(s string, is func(byte) bool) int {
	n := 0
	for n < len(s) && is(s[n]) {
		n++
	}
	return n
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
func isWord(c byte) bool {
	return isDigit(c) || c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// split cuts tokens at a separator.
func split(tokens []token, at string) [][]token {
	parts := [][]token{nil}
	for _, t := range tokens {
		if t.text == at {
			parts = append(parts, nil)
			continue
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], t)
	}
	return parts
}
