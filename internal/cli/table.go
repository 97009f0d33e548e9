package cli

import (
	"strings"
	"unicode/utf8"
)

// gap separates the columns of a table.
const gap = "  "

// table is rows of cells under a heading. Its columns are as wide as they need to be.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

// add adds a row; missing cells are empty.
func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// dropLast leaves the last column out.
func (t *table) dropLast() {
	t.head = t.head[:len(t.head)-1]
	for i, row := range t.rows {
		t.rows[i] = row[:min(len(row), len(t.head))]
	}
}

// leastCut is the width under which no column is cut: ids, keys and times stay whole.
const leastCut = 20

// fit cuts the cells of the widest columns until rows have at most so many columns of a terminal, as far as that goes. 0: nothing is cut;
// nor is a table without a heading, which shows one thing whole.
func (t *table) fit(width int) *table {
	if len(t.head) == 0 {
		return t
	}
	over := -len(gap) - width
	widths := t.widths()
	for _, w := range widths {
		over += w + len(gap)
	}
	for width > 0 && over > 0 {
		widest := 0
		for i := range widths {
			if widths[i] > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= leastCut {
			break
		}
		widths[widest]--
		over--
	}
	for _, row := range t.rows {
		for i := range row {
			row[i] = shorten(oneLine(row[i]), widths[i])
		}
	}
	return t
}

// widths are how wide the columns need to be.
func (t *table) widths() (widths []int) {
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(oneLine(cell)))
		}
	}
	return widths
}

// printTable writes a table to stdout, as wide as the terminal at most.
func (d *door) printTable(t *table) {
	d.print("%s", strings.TrimSuffix(t.fit(d.Width).String(), "\n"))
}

// String is the table as text, each line with its end. Without a heading there is no line for it.
func (t *table) String() string {
	all := t.rows
	if len(t.head) > 0 {
		all = append([][]string{t.head}, t.rows...)
	}
	widths := t.widths()
	var b strings.Builder
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			if i > 0 {
				line.WriteString(gap)
			}
			line.WriteString(pad(oneLine(cell), widths[i]))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// oneLine keeps a cell within its line.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }

// shorten cuts a text to a number of columns.
func shorten(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(0, width-1)]) + "…"
}
