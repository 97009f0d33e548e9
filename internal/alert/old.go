package alert

import (
	"context"
	"fmt"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

const (
	kept       = 90 * day // an alert stays so long after it was over
	forgetMost = 200      // in one transaction
)

// Forget removes alerts that were over long ago. Those that are open stay, however old they are.
func (a *Alerts) Forget(ctx context.Context) error {
	for {
		var ids []string
		look := func(tx *db.Tx) error {
			rows, err := tx.Query(sqlOld, a.now()-op.Time(kept.Microseconds()), forgetMost)
			if err != nil {
				return err
			}
			defer rows.Close()
			for ids = nil; rows.Next(); {
				var id string
				if err := rows.Scan(&id); err != nil {
					return err
				}
				ids = append(ids, id)
			}
			return rows.Err()
		}
		if err := a.DB.View(ctx, look); err != nil || len(ids) == 0 {
			return err
		}
		err := a.DB.Update(ctx, func(tx *db.Tx) error {
			_, err := tx.Exec(sqlForget, ids)
			return err
		})
		if err != nil {
			return fmt.Errorf("remove %d old alerts: %w", len(ids), err)
		}
	}
}

// Stats are figures about alerts, by type, for metrics.
type Stats struct {
	Raised map[string]int64 // since the server started
	Open   map[string]int64
}

// Stats counts alerts. Every type is there.
func (a *Alerts) Stats(ctx context.Context) (Stats, error) {
	s := Stats{map[string]int64{}, map[string]int64{}}
	for i, t := range types {
		s.Raised[t] = a.raised[i].Load()
		if t != Recovered { // is never open
			s.Open[t] = 0
		}
	}
	return s, a.DB.View(ctx, func(tx *db.Tx) error {
		rows, err := tx.Query(sqlOpenCount)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var kind string
			var n int64
			if err := rows.Scan(&kind, &n); err != nil {
				return err
			}
			s.Open[kind] = n
		}
		return rows.Err()
	})
}
