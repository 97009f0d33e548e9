package cue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

const (
	signEvery   = 15 * time.Second // how often the scheduler notes that it is there
	absentAfter = time.Minute      // without a sign for so long nobody was
)

// sign notes that the scheduler is there, if that was not noted lately. The time since the last sign, by whatever server of this
// database, is kept as an absence when it is long.
func (c *Cues) sign(ctx context.Context) error {
	now := c.now()
	if now >= c.signed && now < in(c.signed, signEvery) {
		return nil
	}
	if err := c.DB.Update(ctx, func(tx *db.Tx) error { return signAt(tx, now) }); err != nil {
		return fmt.Errorf("note that the scheduler is there: %w", err)
	}
	c.signed = now
	return nil
}

func signAt(tx *db.Tx, now op.Time) error {
	var text string
	err := tx.Row(sqlSigned).Scan(&text)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	last, _ := strconv.ParseInt(text, 10, 64) // 0 before the first
	if last > 0 && now > in(op.Time(last), absentAfter) {
		if _, err := tx.Exec(sqlAbsent, last, now); err != nil {
			return err
		}
	}
	_, err = tx.Exec(sqlSign, strconv.FormatInt(int64(now), 10))
	return err
}

// absence is the time around a moment in which no server ran; false when one did.
func absence(tx *db.Tx, at op.Time) (from, to op.Time, absent bool, err error) {
	err = tx.Row(sqlAbsence, at).Scan(&from, &to)
	if errors.Is(err, sql.ErrNoRows) || err == nil && to < at {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("read when no server ran: %w", err)
	}
	return from, to, true, nil
}
