package events

import (
	"encoding/json"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// row is an event as tables have it: its JSON, and beside it what queries filter, group and sort by.
type row struct {
	ev     fleet.Event
	time   int64
	texts  [len(textColumns)]string
	status int64
	body   []byte
}

// textColumns are the columns that hold text of the event, id first.
var textColumns = [...]string{"id", "tenant", "host", "type", "status", "node", "region", "client_ip", "method", "path", "point", "parameter"}

// columns lists all columns in the order of row.args.
var columns = strings.Join(textColumns[:], ", ") + ", time, response_status, body"

func rowOf(ev fleet.Event) (row, error) {
	body, err := json.Marshal(ev)
	r := row{ev: ev, time: ev.Time.UnixNano(), status: int64(ev.ResponseStatus), body: body}
	for i, t := range [...]string{
		string(ev.ID), string(ev.Tenant), string(ev.Host), string(ev.Type), string(ev.Status), string(ev.NodeID), string(ev.Region), ev.ClientIP, ev.Method,
		ev.Path, ev.Point, ev.Parameter,
	} {
		r.texts[i] = columnText(t)
	}
	return r, err
}

func rowsOf(evs []fleet.Event) ([]row, error) {
	rows := make([]row, 0, len(evs))
	for _, ev := range evs {
		r, err := rowOf(ev)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// args are the values of columns.
func (r row) args() []any {
	args := make([]any, 0, len(r.texts)+3)
	for _, t := range r.texts {
		args = append(args, t)
	}
	return append(args, r.time, r.status, r.body)
}

// columnText is text that every engine takes: an attacker's NUL must not keep an event out of the store.
func columnText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
