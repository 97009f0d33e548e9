package db

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// NewUUID is a UUID of version 4 (RFC 9562). Its first twelve bits name the moment, in twentieths of a second that begin again every
// few minutes, so that what is written together stands together in indexes; all others are random. What people type, the first eight
// digits, is as good as random: a slip of the finger finds nothing.
func NewUUID(now time.Time) string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	slot := uint16(now.UnixMilli() / 50)
	b[0], b[1] = byte(slot>>4), byte(slot<<4)|b[1]&0x0f
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
