package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
)

// mark remembers on disk the last index that the write-ahead log said was stored. When the log opens, damage to its
// last segment looks to it like a write that a crash cut short, and it drops everything from there on, acknowledged
// entries too; a member that forgets what it acknowledged can lose what the cluster committed. The mark tells the two
// apart.
//
// It is written after an append and not synced, so it survives a crash of the process but may lag after a power cut:
// it can miss damage then, but never see any in a healthy log. It is lowered, and synced, before entries are deleted.
type mark struct{ file *os.File }

const markBytes = 12

// openMark opens or creates the mark; stored is 0 when there is none or it was cut short.
func openMark(path string) (m *mark, stored uint64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, err
	}
	var b [markBytes]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return &mark{f}, 0, nil
	}
	if crc32.Checksum(b[:8], castagnoli) != binary.LittleEndian.Uint32(b[8:]) {
		return &mark{f}, 0, nil
	}
	return &mark{f}, binary.LittleEndian.Uint64(b[:8]), nil
}

// raise records that entries up to index are stored.
func (m *mark) raise(index uint64) error {
	var b [markBytes]byte
	binary.LittleEndian.PutUint64(b[:8], index)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[:8], castagnoli))
	if _, err := m.file.WriteAt(b[:], 0); err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	return nil
}

// lower records, durably, that entries above index are about to be deleted.
func (m *mark) lower(index uint64) error {
	if err := m.raise(index); err != nil {
		return err
	}
	if err := m.file.Sync(); err != nil {
		return fmt.Errorf("sync mark: %w", err)
	}
	return nil
}

func (m *mark) close() error { return errors.Join(m.file.Sync(), m.file.Close()) }
