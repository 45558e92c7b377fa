package config

import (
	"context"

	"github.com/edgefleet/edgefleet/fleet"
)

// DecodeBundle decodes a tenant's bundle as Apply does, without a tree, disk or group key around it.
func DecodeBundle(kind fleet.HeadKind, tenant fleet.TenantID, b []byte) error {
	l := loader{options: Options{Group: fleet.DefaultGroup}, fetch: func(context.Context, fleet.Digest) ([]byte, error) { return b, nil }}
	_, err := l.part(context.Background(), kind, tenant, fleet.DigestOf(b))
	return err
}

// ErrPanicked is in the error of a bundle whose decoding panicked.
const ErrPanicked = "panicked"

// DecodeHeads decodes a heads file in dir.
func DecodeHeads(dir string) error {
	_, err := disk{dir: dir}.read(headsFile)
	return err
}
