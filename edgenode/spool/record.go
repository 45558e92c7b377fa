package spool

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/edgefleet/edgefleet/fleet"
)

// A record is a header and the event's JSON. All numbers are little-endian:
//
//	magic   4 bytes  "efe1"
//	length  4 bytes  of the payload
//	seq     8 bytes
//	crc     4 bytes  CRC-32C of length, seq and payload
//
// The magic lets a reader find the next whole record after damaged bytes.
const headerBytes = 20

// maxPayload bounds the payload of a record: one event without the message around it.
const maxPayload = fleet.MaxEventBytes - 64

var (
	magic      = []byte("efe1")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func appendRecord(b []byte, seq uint64, payload []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = binary.LittleEndian.AppendUint32(b, checksum(b[start+4:start+16], payload))
	return append(b, payload...)
}

func checksum(lengthAndSeq, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(lengthAndSeq, castagnoli), castagnoli, payload)
}

// decodeRecord reads the record at the start of b; ok is false when there is no whole and undamaged one. The payload
// aliases b.
func decodeRecord(b []byte) (seq uint64, payload []byte, ok bool) {
	if len(b) < headerBytes || !bytes.Equal(b[:4], magic) {
		return 0, nil, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n > maxPayload || int(n) > len(b)-headerBytes {
		return 0, nil, false
	}
	payload = b[headerBytes : headerBytes+int(n)]
	if checksum(b[4:16], payload) != binary.LittleEndian.Uint32(b[16:]) {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint64(b[8:]), payload, true
}

// scan calls found for each whole record of b with its offset, skipping damaged bytes between them.
func scan(b []byte, found func(offset int, seq uint64, payload []byte)) {
	for at := 0; at < len(b); {
		seq, payload, ok := decodeRecord(b[at:])
		if ok {
			found(at, seq, payload)
			at += headerBytes + len(payload)
			continue
		}
		next := bytes.Index(b[at+1:], magic)
		if next < 0 {
			return
		}
		at += 1 + next
	}
}
