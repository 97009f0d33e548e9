package db_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/ncruces/go-sqlite3/driver"

	"unstuck/internal/db"
	"unstuck/internal/testkit/pgtest"
)

// BenchmarkUpdate measures durable updates of one row each. The floor is what the machine can do in the same run without this
// package: an append and fsync of a file, and one INSERT after the other on a bare connection.
func BenchmarkUpdate(b *testing.B) {
	b.Run("floor/fsync", fileFloor)
	b.Run("floor/sqlite", sqliteFloor)
	b.Run("floor/postgres", postgresFloor)
	for _, engine := range []string{"sqlite", "postgres"} {
		for _, callers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/%d", engine, callers), func(b *testing.B) {
				updateLoop(b, open(b, db.Options{DSN: benchDSN(b, engine)}), callers)
			})
		}
	}
}

func benchDSN(b *testing.B, engine string) string {
	if engine == "sqlite" {
		return filepath.Join(b.TempDir(), "bench.db")
	}
	dsn := pgtest.DSN(b)
	pgtest.Durable(b)
	return dsn
}

// updateLoop lets callers insert rows, each as soon as its last one is answered.
func updateLoop(b *testing.B, d *db.DB, callers int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	before := d.Stats()
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				err := d.Update(context.Background(), func(tx *db.Tx) error { return set(tx, fmt.Sprint("name ", i), "value") })
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	s := d.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
	b.ReportMetric(float64(b.N)/float64(s.Callers.Count-before.Callers.Count), "callers/commit")
}

func fileFloor(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "floor"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	row := make([]byte, 4096)
	for b.Loop() {
		if _, err := f.Write(row); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

func sqliteFloor(b *testing.B) {
	path := filepath.Join(b.TempDir(), "floor.db")
	bare, err := sql.Open("sqlite3", "file:"+path+"?_pragma=journal_mode(wal)&_pragma=synchronous(full)")
	if err != nil {
		b.Fatal(err)
	}
	defer bare.Close()
	bare.SetMaxOpenConns(1)
	if _, err := bare.Exec("CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID"); err != nil {
		b.Fatal(err)
	}
	insert, err := bare.Prepare("INSERT INTO settings (name, value) VALUES (?1, ?2)")
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if _, err := insert.Exec(fmt.Sprint("name ", i), "value"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

func postgresFloor(b *testing.B) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, benchDSN(b, "postgres"))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `CREATE TABLE settings (name TEXT COLLATE "C" PRIMARY KEY, value TEXT NOT NULL)`); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if _, err := conn.Exec(ctx, "INSERT INTO settings (name, value) VALUES ($1, $2)", fmt.Sprint("name ", i), "value"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

// BenchmarkView measures reads of one row by key.
func BenchmarkView(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		b.Run(engine, func(b *testing.B) {
			d := open(b, db.Options{DSN: benchDSN(b, engine)})
			ctx := context.Background()
			if err := d.Update(ctx, func(tx *db.Tx) error { return set(tx, "a", strings.Repeat("v", 100)) }); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					var value string
					err := d.View(ctx, func(tx *db.Tx) error {
						return tx.Row("SELECT value FROM settings WHERE name = ?1", "a").Scan(&value)
					})
					if err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkRows measures one UPDATE of many rows by @rows; the time for each row ought not to depend on their number.
func BenchmarkRows(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		for _, n := range []int{100, 1_000, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", engine, n), func(b *testing.B) {
				d := open(b, db.Options{DSN: benchDSN(b, engine)})
				names, values := make([]string, n), make([]string, n)
				for i := range n {
					names[i], values[i] = fmt.Sprintf("name %06d", i), fmt.Sprintf("value %d", i)
				}
				write := func(text string) {
					update(b, d, func(tx *db.Tx) error { _, err := tx.Exec(text, names, values); return err })
				}
				write("INSERT INTO settings (name, value) SELECT r.name, r.value FROM @rows(name TEXT ?1, value TEXT ?2) AS r")
				for b.Loop() {
					write("UPDATE settings SET value = r.value FROM @rows(name TEXT ?1, value TEXT ?2) AS r WHERE settings.name = r.name")
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(n), "µs/row")
			})
		}
	}
}
