package devfleet

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// scanChunk is how much of a file is searched at once; chunks overlap by the longest needle.
const scanChunk = 1 << 20

// finding says that a file holds a secret in one of its spellings.
type finding struct{ path, what string }

// needle is one spelling of a secret.
type needle struct {
	bytes []byte
	what  string
}

// spellings lists the forms in which a secret of letters and digits could be written: as it is, hex, and base64 at
// each of the three alignments (without the outer characters, which depend on the neighbours).
func spellings(secret string) []needle {
	ns := []needle{
		{[]byte(secret), "plain"},
		{[]byte(hex.EncodeToString([]byte(secret))), "hex"},
	}
	for pad := range 3 {
		e := base64.StdEncoding.EncodeToString(append(make([]byte, pad), secret...))
		skip := []int{0, 2, 3}[pad]
		end := len(e)
		if rest := (pad + len(secret)) % 3; rest != 0 {
			end -= 4 - rest // padding, and the character that holds bits of what follows
		}
		ns = append(ns, needle{[]byte(e[skip:end]), "base64"})
	}
	return ns
}

// scan looks for a secret in every byte of every file below the directories. It returns what it found and how many
// bytes it read. Files that disappear meanwhile are left out.
func scan(ctx context.Context, secret string, dirs ...string) (found []finding, read int64, err error) {
	ns := spellings(secret)
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			if !e.Type().IsRegular() {
				return nil
			}
			what, n, err := scanFile(path, ns)
			read += n
			for _, w := range what {
				found = append(found, finding{path, w})
			}
			return err
		})
		if err != nil {
			return found, read, fmt.Errorf("scan %s: %w", dir, err)
		}
	}
	return found, read, nil
}

func scanFile(path string, ns []needle) (what []string, read int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }()
	overlap := 0
	for _, n := range ns {
		overlap = max(overlap, len(n.bytes)-1)
	}
	buf := make([]byte, overlap+scanChunk)
	kept := 0
	for {
		n, err := io.ReadFull(f, buf[kept:])
		read += int64(n)
		window := buf[:kept+n]
		for _, nd := range ns {
			if bytes.Contains(window, nd.bytes) && !slices.Contains(what, nd.what) {
				what = append(what, nd.what)
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return what, read, nil
		}
		if err != nil {
			return what, read, err
		}
		kept = copy(buf, window[len(window)-min(overlap, len(window)):])
	}
}
