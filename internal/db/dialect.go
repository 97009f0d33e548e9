package db

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// dialect says for which database a text is meant. Everything in which the two databases read SQL differently is decided in
// this file.
type dialect int

const (
	sqlite dialect = iota
	postgres
)

// statement is one SQL text, ready for one database.
type statement struct {
	text   string
	params int     // the highest parameter number
	writes bool    // the text contains a word that changes rows, so its caller needs a savepoint
	groups [][]int // parameters (from 0) of each @rows: lists of one length
	joined [][]int // those of groups that SQLite gets as one list of rows, as parameters of their own behind the others
	direct []bool  // parameters that are bound as they are: all but those that stand in joined groups only
}

// statements remembers how texts were rewritten, so that each is read once.
type statements struct {
	dialect dialect
	byQuery sync.Map // string -> *statement
}

// of returns the statement for a query, rewriting it at its first use.
func (ss *statements) of(query string) (*statement, error) {
	if known, ok := ss.byQuery.Load(query); ok {
		return known.(*statement), nil
	}
	st, err := ss.dialect.statement(query)
	if err != nil {
		return nil, err
	}
	ss.byQuery.Store(query, st)
	return st, nil
}

// statement rewrites a query for the database: parameters ?1 to $1 on PostgreSQL, the type names INTEGER and BLOB as in the
// tables, and the macros @list and @rows. It refuses parameters without a number and numbers that are left out.
func (d dialect) statement(query string) (*statement, error) {
	tokens, err := lex(query)
	if err != nil {
		return nil, err
	}
	r := rewriter{dialect: d, in: tokens, used: map[int]bool{}, bound: map[int]bool{}}
	for r.more() {
		if err := r.step(); err != nil {
			return nil, fmt.Errorf("%w in %s", err, brief(query))
		}
	}
	for n := 1; n <= r.params; n++ {
		if !r.used[n] {
			return nil, fmt.Errorf("parameter ?%d is never used in %s", n, brief(query))
		}
	}
	st := &statement{params: r.params, writes: r.writes, groups: r.groups, joined: r.joined, direct: make([]bool, r.params)}
	for n := range st.direct {
		st.direct[n] = r.bound[n+1]
	}
	for i, at := range r.holes {
		r.out[at] = "?" + strconv.Itoa(r.params+1+i)
	}
	st.text = strings.Join(r.out, "")
	return st, nil
}

// rewriter walks over the tokens of a query and writes them anew.
type rewriter struct {
	dialect dialect
	in      []token
	at      int
	out     []string
	used    map[int]bool
	params  int
	bound   map[int]bool // see statement.direct
	writes  bool
	groups  [][]int
	joined  [][]int
	holes   []int // where in out the parameters of joined groups stand, whose numbers come last
}

func (r *rewriter) more() bool { return r.at < len(r.in) }

func (r *rewriter) step() error {
	t := r.in[r.at]
	r.at++
	switch t.kind {
	case param:
		s, err := r.param(t)
		if err != nil {
			return err
		}
		r.emit(s)
	case macro:
		return r.macro(t)
	case word:
		switch strings.ToUpper(t.text) {
		case "INSERT", "UPDATE", "DELETE":
			r.writes = true
		}
		r.emit(r.dialect.typeName(t.text))
	default:
		r.emit(t.text)
	}
	return nil
}

func (r *rewriter) emit(s string) { r.out = append(r.out, s) }

// param notes that a parameter is used and returns how the database spells it.
func (r *rewriter) param(t token) (string, error) {
	n, err := strconv.Atoi(t.text[1:])
	if err != nil || n < 1 || n > 999 {
		return "", fmt.Errorf("parameter %q needs a number from 1 to 999, like ?1,", t.text)
	}
	r.used[n], r.bound[n] = true, true
	r.params = max(r.params, n)
	if r.dialect == postgres {
		return "$" + strconv.Itoa(n), nil
	}
	return "?" + strconv.Itoa(n), nil
}

// macro writes one of the two macros (see [Tx.Exec]).
func (r *rewriter) macro(t token) error {
	inner, err := r.parenthesis()
	if err != nil {
		return fmt.Errorf("%s %w", t.text, err)
	}
	switch t.text {
	case "@list":
		return r.list(inner)
	case "@rows":
		return r.rows(inner)
	}
	return fmt.Errorf("unknown macro %s", t.text)
}

// list writes "x IN @list(?1)", where the argument is a slice.
func (r *rewriter) list(inner []token) error {
	if len(inner) != 1 || inner[0].kind != param {
		return fmt.Errorf("@list takes one parameter, like @list(?1),")
	}
	p, err := r.param(inner[0])
	if err != nil {
		return err
	}
	if !r.dropWord("IN") {
		return fmt.Errorf("@list stands behind IN or NOT IN only")
	}
	not := r.dropWord("NOT")
	switch {
	case r.dialect == sqlite && not:
		r.emit(" NOT IN (SELECT value FROM json_each(" + p + "))")
	case r.dialect == sqlite:
		r.emit(" IN (SELECT value FROM json_each(" + p + "))")
	case not:
		r.emit(" <> ALL(" + p + ")")
	default:
		r.emit(" = ANY(" + p + ")")
	}
	return nil
}

// rows writes "@rows(id TEXT ?1, due INTEGER ?2)": a table with these columns, made of lists of one length, and a column i
// that counts from 1.
func (r *rewriter) rows(inner []token) error {
	var columns []rowsColumn
	var group []int
	for _, c := range split(inner, ",") {
		if len(c) != 3 || c[0].kind != word || c[1].kind != word || c[2].kind != param {
			return fmt.Errorf("@rows takes columns like (id TEXT ?1, due INTEGER ?2), which is not what stands")
		}
		kind := strings.ToUpper(c[1].text)
		if kind != "TEXT" && kind != "INTEGER" {
			return fmt.Errorf("@rows knows TEXT and INTEGER, not %s,", kind)
		}
		before := maps.Clone(r.bound)
		p, err := r.param(c[2])
		if err != nil {
			return err
		}
		if r.dialect == sqlite && len(inner) > 3 {
			r.bound = before // it is bound in the rows
		}
		n, _ := strconv.Atoi(c[2].text[1:]) // param has accepted it
		group = append(group, n-1)
		columns = append(columns, rowsColumn{c[0].text, r.dialect.typeName(kind), p})
	}
	r.groups = append(r.groups, group)
	if r.dialect == postgres {
		r.unnest(columns)
	} else {
		r.jsonRows(columns, group)
	}
	return nil
}

// rowsColumn is one column of @rows.
type rowsColumn struct{ name, kind, param string }

func (r *rewriter) unnest(columns []rowsColumn) {
	var lists, names []string
	for _, c := range columns {
		lists, names = append(lists, c.param+"::"+c.kind+"[]"), append(names, c.name)
	}
	r.emit(fmt.Sprintf("(SELECT * FROM unnest(%s) WITH ORDINALITY AS u(%s, i))", strings.Join(lists, ", "), strings.Join(names, ", ")))
}

// jsonRows reads one column from its list, and several from one list of rows: looking for each value in its list would take a
// time that grows with the square of their length.
func (r *rewriter) jsonRows(columns []rowsColumn, group []int) {
	if len(columns) == 1 {
		r.emit(fmt.Sprintf("(SELECT value AS %s, key + 1 AS i FROM json_each(%s))", columns[0].name, columns[0].param))
		return
	}
	r.emit("(SELECT ")
	for i, c := range columns {
		r.emit(fmt.Sprintf("value ->> %d AS %s, ", i, c.name))
	}
	r.emit("key + 1 AS i FROM json_each(")
	r.joined, r.holes = append(r.joined, group), append(r.holes, len(r.out))
	r.emit("?")
	r.emit("))")
}

// parenthesis takes the tokens between the next two parentheses, without space and comments.
func (r *rewriter) parenthesis() ([]token, error) {
	var inner []token
	for i := r.at; i < len(r.in); i++ {
		t := r.in[i]
		switch {
		case i == r.at:
			if t.text != "(" {
				return nil, fmt.Errorf("needs a parenthesis,")
			}
		case t.text == ")":
			r.at = i + 1
			return inner, nil
		case t.kind != space:
			inner = append(inner, t)
		}
	}
	return nil, fmt.Errorf("needs a parenthesis,")
}

// dropWord takes back the word written last, if it is this one, with the space around it.
func (r *rewriter) dropWord(w string) bool {
	end := len(r.out)
	for end > 0 && strings.TrimSpace(r.out[end-1]) == "" {
		end--
	}
	if end == 0 || !strings.EqualFold(r.out[end-1], w) {
		return false
	}
	end--
	for end > 0 && strings.TrimSpace(r.out[end-1]) == "" {
		end--
	}
	r.out = r.out[:end]
	return true
}

// typeName translates the three column types of SQLite's STRICT tables.
func (d dialect) typeName(word string) string {
	if d == postgres {
		switch strings.ToUpper(word) {
		case "INTEGER":
			return "BIGINT"
		case "BLOB":
			return "BYTEA"
		}
	}
	return word
}

// migration rewrites a migration's text, which is written for SQLite's STRICT tables and has no parameters. For PostgreSQL it
// translates the types, lets every text column compare bytes (COLLATE "C"), as SQLite does, and drops the table options
// STRICT and WITHOUT ROWID.
func (d dialect) migration(text string) (string, error) {
	tokens, err := lex(text)
	if err != nil {
		return "", err
	}
	if d == sqlite {
		return text, nil
	}
	var out []string
	previous := ""
	for i, t := range tokens {
		s := t.text
		switch {
		case t.kind == param || t.kind == macro:
			return "", fmt.Errorf("a migration takes no parameters, but has %s", t.text)
		case t.kind == word && strings.EqualFold(s, "TEXT") && !strings.EqualFold(previous, "AS"):
			s = `TEXT COLLATE "C"`
		case t.kind == word && isTableOption(tokens, i):
			s = ""
		case t.text == "," && previous == ")" && followedByOption(tokens, i):
			s = ""
		case t.kind == word:
			s = d.typeName(s)
		}
		if t.kind != space && s != "" {
			previous = s
		}
		out = append(out, s)
	}
	return strings.Join(out, ""), nil
}

// isTableOption says whether the word at i belongs to the options between a table's closing parenthesis and the semicolon.
func isTableOption(tokens []token, i int) bool {
	options := []string{"STRICT", "WITHOUT", "ROWID"}
	is := func(t token) bool { return slices.Contains(options, strings.ToUpper(t.text)) }
	if !is(tokens[i]) {
		return false
	}
	for j := i - 1; j >= 0; j-- {
		switch t := tokens[j]; {
		case t.text == ")":
			return true
		case t.kind != space && t.text != "," && !is(t):
			return false
		}
	}
	return false
}

func followedByOption(tokens []token, i int) bool {
	for j := i + 1; j < len(tokens); j++ {
		if tokens[j].kind != space {
			return isTableOption(tokens, j)
		}
	}
	return false
}

// brief shortens a query for an error: parameters are not in it, so it holds nothing secret.
func brief(query string) string {
	s := strings.Join(strings.Fields(query), " ")
	if len(s) > 80 {
		s = s[:77] + "..."
	}
	return strconv.Quote(s)
}
