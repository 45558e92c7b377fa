package api

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerEventQueries() {
	handle(a, op("event-query", http.MethodGet, "/v1/tenants/{tenant}/events:query", "Counts of a tenant's attack events, grouped, from this member's store", tenantOwn, fleet.PermEventsRead, fleet.DutyConsole).locally(), a.eventQuery)
	export := operation{
		long: true,
		id:   "event-export", method: http.MethodGet, path: "/v1/tenants/{tenant}/events:export", scope: tenantOwn, permission: fleet.PermEventsRead, duty: fleet.DutyConsole,
		summary: "A tenant's attack events, oldest first, as NDJSON (an Event a line) or CSV, as they are read; a connection that breaks means that the export is not complete",
	}.locally()
	handle(a, export, func(ctx context.Context, in *ExportQuery) (*huma.StreamResponse, error) {
		first, err := a.o.Events.Query(ctx, in.query())
		if err != nil {
			return nil, err // while it can still be told
		}
		leave, err := a.tails.enter(in.tenant())
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer leave()
			_, w := humago.Unwrap(hc)
			if !a.export(ctx, a.newStream(w, in.tenant(), export), in, first) {
				panic(http.ErrAbortHandler) // the client must not take it for the whole
			}
		}}, nil
	})
	content := a.huma.OpenAPI().Paths[export.path].Get.Responses["200"]
	content.Content = map[string]*huma.MediaType{"application/x-ndjson": {}, "text/csv": {}}
}

// AggregateQuery asks for counts of events.
type AggregateQuery struct {
	TenantPath
	Select  []string  `query:"select" maxItems:"4" doc:"what to count: count (default), blocked, first, last"`
	GroupBy []string  `query:"group_by" maxItems:"8" doc:"type, host, status, node, region, client_ip, method, path, point, parameter, response_status, minute, hour, day"`
	Where   []string  `query:"where,explode" maxItems:"100" doc:"field:comparison:value with the comparisons eq, ne, in, prefix; conditions hold all together, the values of one field's in together are its set" example:"[\"type:in:sqli\",\"type:in:xss\",\"path:prefix:/api/\"]"`
	OrderBy []string  `query:"order_by" maxItems:"8" doc:"fields or measures; with - before it the largest first. Default: the first measure, the largest first, or by time" example:"[\"-count\"]"`
	Since   time.Time `query:"since" doc:"not before; default: a day before until"`
	Until   time.Time `query:"until" doc:"before; default: now"`
	Cursor  string    `query:"cursor" maxLength:"512" doc:"next of the page before"`
	Limit   int       `query:"limit" minimum:"1" maximum:"100" default:"50" doc:"groups a page"`
}

func (in *AggregateQuery) aggregation() (events.Aggregation, error) {
	a := events.Aggregation{Tenant: in.tenant(), Select: in.Select, GroupBy: in.GroupBy, Since: in.Since, Until: in.Until, Cursor: in.Cursor, Limit: in.Limit}
	sets := map[string]int{}
	for _, w := range in.Where {
		parts := strings.SplitN(w, ":", 3)
		if len(parts) != 3 {
			return a, fleet.Invalid("where", "%.100q is not field:comparison:value, such as type:eq:sqli", w)
		}
		if i, ok := sets[parts[0]]; ok && parts[1] == "in" {
			a.Where[i].Values = append(a.Where[i].Values, parts[2])
			continue
		}
		if parts[1] == "in" {
			sets[parts[0]] = len(a.Where)
		}
		a.Where = append(a.Where, events.Condition{Field: parts[0], Op: parts[1], Values: parts[2:]})
	}
	for _, o := range in.OrderBy {
		by, desc := strings.CutPrefix(o, "-")
		a.OrderBy = append(a.OrderBy, events.Order{By: by, Desc: desc})
	}
	return a, nil
}

func (a *API) eventQuery(ctx context.Context, in *AggregateQuery) (*Body[client.Page[map[string]any]], error) {
	q, err := in.aggregation()
	if err != nil {
		return nil, err
	}
	p, err := a.o.Events.Aggregate(ctx, q)
	return &Body[client.Page[map[string]any]]{Body: client.Page[map[string]any]{Items: p.Rows, Next: p.Next}}, err
}

// ExportQuery selects events for an export.
type ExportQuery struct {
	TenantPath
	Format string    `query:"format" enum:"ndjson,csv" default:"ndjson" doc:"an Event a line, or a table with the most important fields"`
	Host   string    `query:"host" maxLength:"253" doc:"only this host"`
	Type   string    `query:"type" maxLength:"32" doc:"only this attack type"`
	Status string    `query:"status" enum:"blocked,monitored" doc:"only these"`
	Attack string    `query:"attack" maxLength:"64" doc:"only hits of this attack"`
	Since  time.Time `query:"since" doc:"not before"`
	Until  time.Time `query:"until" doc:"before"`
}

func (in *ExportQuery) query() events.Query {
	return events.Query{
		Tenant: in.tenant(), Host: fleet.HostName(in.Host), Type: fleet.AttackType(in.Type), Status: fleet.BlockStatus(in.Status), Attack: fleet.AttackID(in.Attack),
		Since: in.Since, Until: in.Until, Limit: events.MaxLimit, Ascending: true,
	}
}

// export writes the pages from the first on; false if it broke off.
func (a *API) export(ctx context.Context, s *stream, in *ExportQuery, page events.Page) bool {
	kind, encode := "application/x-ndjson", writeNDJSON
	if in.Format == "csv" {
		kind, encode = "text/csv; charset=utf-8; header=present", writeCSV
	}
	s.w.Header().Set("Content-Type", kind)
	s.w.WriteHeader(http.StatusOK)
	q, begun := in.query(), false
	for {
		_ = s.rc.SetWriteDeadline(time.Now().Add(a.tails.stalled)) // servers support it
		if err := encode(s.w, page.Events, !begun); err != nil || s.rc.Flush() != nil {
			return false
		}
		if begun = true; page.Next == "" {
			_ = s.rc.SetWriteDeadline(time.Time{})
			return true
		}
		if !a.mayStill(ctx, s.op, s.tenant) {
			return false
		}
		select {
		case <-a.tails.ended:
			return false
		default:
		}
		q.Cursor = page.Next
		var err error
		if page, err = a.o.Events.Query(ctx, q); err != nil {
			a.o.Telemetry.Logger.WarnContext(ctx, "an export of events breaks off: the store cannot be read", "tenant", s.tenant, "err", err)
			return false
		}
	}
}

func writeNDJSON(w io.Writer, evs []fleet.Event, _ bool) error {
	e := json.NewEncoder(w)
	for _, ev := range evs {
		if err := e.Encode(ev); err != nil {
			return err
		}
	}
	return nil
}

// csvHeader names the columns of csvRow.
var csvHeader = []string{
	"time", "event_id", "host", "type", "block_status", "mode", "method", "path", "point", "parameter", "payloads", "client_ip", "response_status", "anomaly_score", "rules", "node_id", "region", "request_id",
}

func writeCSV(w io.Writer, evs []fleet.Event, header bool) error {
	c := csv.NewWriter(w)
	c.UseCRLF = true // RFC 4180
	if header {
		if err := c.Write(csvHeader); err != nil {
			return err
		}
	}
	for _, ev := range evs {
		if err := c.Write(csvRow(ev)); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

func csvRow(e fleet.Event) []string {
	rules := make([]string, len(e.Rules))
	for i, r := range e.Rules {
		rules[i] = r.ID
	}
	row := []string{
		e.Time.UTC().Format(time.RFC3339Nano), string(e.ID), string(e.Host), string(e.Type), string(e.Status), string(e.Mode), e.Method, e.Path, e.Point, e.Parameter,
		strings.Join(e.Payloads, "\n"), e.ClientIP, strconv.Itoa(e.ResponseStatus), strconv.Itoa(e.Score), strings.Join(rules, " "), string(e.NodeID), string(e.Region), e.RequestID,
	}
	for i, cell := range row {
		row[i] = defuse(cell)
	}
	return row
}

// defuse keeps a spreadsheet from taking what an attacker sent for a formula: it is shown as the text that it is.
func defuse(cell string) string {
	if text := strings.TrimLeft(cell, " "); text != "" && strings.ContainsRune("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20", []rune(text)[0]) {
		return "'" + cell
	}
	return cell
}
