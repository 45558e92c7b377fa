package consensus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"github.com/edgefleet/edgefleet/fleet"
)

// checkedCodec puts a CRC-32C before each entry and checks it at every read. The write-ahead log by itself checks
// only the last batch, and only when it opens: a bit that flips in an older entry would be handed to Raft, applied
// here and replicated from here.
type checkedCodec struct{ inner wal.BinaryCodec }

// checkedCodecID is written into every segment; it names this format for ever.
const checkedCodecID = wal.FirstExternalCodecID + 1

const checksumBytes = 4

// ID implements wal.Codec.
func (*checkedCodec) ID() uint64 { return checkedCodecID }

// Encode implements wal.Codec.
func (c *checkedCodec) Encode(l *raft.Log, w io.Writer) error {
	var body bytes.Buffer
	if err := c.inner.Encode(l, &body); err != nil {
		return err
	}
	var sum [checksumBytes]byte
	binary.LittleEndian.PutUint32(sum[:], crc32.Checksum(body.Bytes(), castagnoli))
	if _, err := w.Write(sum[:]); err != nil {
		return err
	}
	_, err := w.Write(body.Bytes())
	return err
}

// Decode implements wal.Codec: it returns fleet.ErrCorrupt for bytes that Encode did not write.
func (c *checkedCodec) Decode(b []byte, l *raft.Log) error {
	if len(b) < checksumBytes {
		return fmt.Errorf("%w: an entry of %d bytes", fleet.ErrCorrupt, len(b))
	}
	body := b[checksumBytes:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b) {
		return fmt.Errorf("%w: checksum of an entry does not match", fleet.ErrCorrupt)
	}
	if err := c.inner.Decode(body, l); err != nil {
		return fmt.Errorf("%w: decode an entry: %w", fleet.ErrCorrupt, err)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
