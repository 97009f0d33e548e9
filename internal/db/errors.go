package db

import (
	"errors"
	"fmt"
	"time"
)

// Errors that callers tell apart with errors.Is. The cause is wrapped beside them.
var (
	// ErrUnknown says that COMMIT itself failed in a way that leaves open whether the changes took effect. The caller must
	// read again before it repeats anything; whoever keeps memory beside the database registers with [DB.OnUnknown].
	ErrUnknown = error(passing("it is unknown whether the change was saved, because the database failed while saving it; look before you repeat it"))

	// ErrDiskFull says that there was no room to write, with [Tx.Urgent] not even in the reserve. Nothing was changed; the next
	// Update works again when there is room.
	ErrDiskFull = error(passing("the disk of the database is full, or cannot be written: nothing was changed"))

	// ErrLostLock says that the connection that holds the server's lock on PostgreSQL broke and the lock is not held again
	// yet. It passes by itself; answer 503.
	ErrLostLock = error(passing("the lock on the database was lost, and it is being taken again"))

	// ErrClosed says that the database was closed before the function had its turn.
	ErrClosed = error(passing("the database is closed"))

	// ErrReadOnly says that a View, or a database opened with Options.ReadOnly, was asked to write.
	ErrReadOnly = errors.New("this is a read: it cannot write")

	// ErrText says that a text argument has a NUL byte or is not UTF-8, which PostgreSQL cannot store.
	ErrText = errors.New("text must be UTF-8 without NUL bytes")

	// ErrNested says that View or Update was called by a function that is itself in a View or Update.
	ErrNested = errors.New("View and Update cannot be called inside View or Update: use the transaction")

	// ErrNewer is matched by a [*NewerError].
	ErrNewer = errors.New("the database is newer than this program")

	// ErrLocked is matched by a [*LockedError].
	ErrLocked = errors.New("another server uses this database")
)

// passing is a failure that is nobody's fault and may be over at the next try. Its sentence is for whoever made the call.
type passing string

func (p passing) Error() string { return string(p) }

// Unavailable is the sentence, for doors that tell such failures from faults of the program.
func (p passing) Unavailable() string { return string(p) }

// errTxOver says that a transaction was used after its function had returned.
var errTxOver = errors.New("the transaction is over: it was used after its function returned")

// NewerError refuses a database that a later version of the program has migrated.
type NewerError struct {
	Have int64 // the version of the database
	Know int64 // the newest version this program knows
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("the database was made by a newer version of this program (its version is %d, this program knows versions up to %d): "+
		"run the newer program, or restore a backup that was made before the upgrade", e.Have, e.Know)
}

// Is makes errors.Is(err, ErrNewer) true.
func (e *NewerError) Is(target error) bool { return target == ErrNewer }

// LockedError refuses a second server on one database and says who holds it.
type LockedError struct {
	Database string    // the file, or host and name of the PostgreSQL database
	Holder   string    // like "process 4711" or "process 4711 on db1"; empty if the holder could not be read
	Since    time.Time // when it took the lock, by the clock of the file system or of PostgreSQL; zero if unknown
}

func (e *LockedError) Error() string {
	who := "another server"
	if e.Holder != "" {
		who += " (" + e.Holder + ")"
	}
	since := ""
	if !e.Since.IsZero() {
		since = " since " + e.Since.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	return fmt.Sprintf("%s uses the database %s%s: stop it first, one database serves one server", who, e.Database, since)
}

// Is makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// IsUnique says whether an error is, or wraps, the violation of a primary key or unique index, on either database.
func IsUnique(err error) bool { return sqliteUnique(err) || postgresUnique(err) }
