package db

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ncruces/go-sqlite3"
)

// rowset is the lists of one @rows, as SQLite reads them: from our memory, by the table-valued function rowset. As JSON they would
// be read once for every row and column.
type rowset struct {
	n     int
	lists []any // each a []string or a []int64
}

const rowsetMost = 24 // columns

// registerRowset makes the function known to a connection.
func registerRowset(c *sqlite3.Conn) error {
	var columns strings.Builder
	for i := range rowsetMost {
		fmt.Fprintf(&columns, "c%d, ", i)
	}
	return sqlite3.CreateModule(c, "rowset", nil, //nolint:staticcheck // its generic method needs a later Go
		func(c *sqlite3.Conn, _, _, _ string, _ ...string) (rowsetTable, error) {
			return rowsetTable{}, c.DeclareVTab("CREATE TABLE x (" + columns.String() + "i, source HIDDEN)")
		})
}

type rowsetTable struct{}

// BestIndex implements sqlite3.VTab: the table can only be read with its source.
func (rowsetTable) BestIndex(idx *sqlite3.IndexInfo) error {
	for i, c := range idx.Constraint {
		if c.Column == rowsetMost+1 && c.Op == sqlite3.INDEX_CONSTRAINT_EQ && c.Usable {
			idx.ConstraintUsage[i] = sqlite3.IndexConstraintUsage{Omit: true, ArgvIndex: 1}
			idx.EstimatedCost, idx.EstimatedRows = 1, 100
			return nil
		}
	}
	return sqlite3.CONSTRAINT
}

func (rowsetTable) Open() (sqlite3.VTabCursor, error) { return &rowsetCursor{}, nil }

type rowsetCursor struct {
	*rowset
	at int
}

var errNoRowset = errors.New("rowset reads what a statement with @rows was given")

func (c *rowsetCursor) Filter(_ int, _ string, args ...sqlite3.Value) error {
	r, ok := args[0].Pointer().(*rowset)
	if !ok {
		return errNoRowset
	}
	c.rowset, c.at = r, 0
	return nil
}

func (c *rowsetCursor) Next() error           { c.at++; return nil }
func (c *rowsetCursor) EOF() bool             { return c.at >= c.n }
func (c *rowsetCursor) RowID() (int64, error) { return int64(c.at) + 1, nil }

func (c *rowsetCursor) Column(ctx sqlite3.Context, n int) error {
	if n == rowsetMost {
		ctx.ResultInt64(int64(c.at) + 1)
		return nil
	}
	if n >= len(c.lists) {
		return nil // the source
	}
	switch l := c.lists[n].(type) {
	case []string:
		ctx.ResultText(l[c.at])
	case []int64:
		ctx.ResultInt64(l[c.at])
	}
	return nil
}
