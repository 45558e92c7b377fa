package state

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/edgefleet/edgefleet/fleet"
)

const indexEnd = "end"

func certificatesTable() *memdb.TableSchema {
	return table(Certificates, field("Host"), &memdb.IndexSchema{Name: indexEnd, Unique: true, Indexer: byEnd{}})
}

// byEnd indexes certificates by when they end, and then by host.
type byEnd struct{}

func endKey(end time.Time, host string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(max(0, end.Unix()))), host...)
}

// FromObject implements memdb.SingleIndexer.
func (byEnd) FromObject(raw any) (bool, []byte, error) {
	c, ok := raw.(*fleet.CertificateRecord)
	if !ok {
		return false, nil, fmt.Errorf("%T is no certificate", raw)
	}
	return true, endKey(c.NotAfter, string(c.Host)), nil
}

// FromArgs implements memdb.Indexer.
func (byEnd) FromArgs(args ...any) ([]byte, error) {
	if len(args) == 2 {
		end, ok := args[0].(time.Time)
		host, named := args[1].(string)
		if ok && named {
			return endKey(end, host), nil
		}
	}
	return nil, fmt.Errorf("a time and a name are needed, not %v", args)
}

// CertificatesEnding lists at most limit certificates of one tenant, or of all for the empty tenant, in the order in which
// they end, after the one of the host that ends at that second, and none that ends at until or later; a zero until is no end.
func (v *View) CertificatesEnding(tenant fleet.TenantID, after time.Time, host fleet.HostName, until time.Time, limit int) []fleet.Certificate {
	var out []fleet.Certificate
	for c := range rows[fleet.CertificateRecord](v.txn.LowerBound(string(Certificates), indexEnd, after, string(host))) {
		if c.Host == host && c.NotAfter.Unix() == after.Unix() || tenant != "" && c.Tenant != tenant {
			continue
		}
		if len(out) == limit || !until.IsZero() && !c.NotAfter.Before(until) {
			break
		}
		out = append(out, c.Certificate)
	}
	return out
}
