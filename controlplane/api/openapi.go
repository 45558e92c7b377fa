package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/observability"
)

//go:generate sh -c "go run ../cmd/controlplane openapi > ../../docs/openapi.json"

// config is what huma is set up with: JSON only, no extra pages, no $schema links in bodies (an object is what it is).
func config() huma.Config {
	c := huma.DefaultConfig("Edgefleet", "1")
	c.Info.Description = "Control plane of a managed security edge. Every change is audited; errors are RFC 9457 problems with a stable kind."
	c.CreateHooks = nil
	c.DocsPath, c.SchemasPath, c.OpenAPIPath = "", "", ""
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}
	c.Formats = map[string]huma.Format{"application/json": format, "json": format} // and what ends with +json
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "API token, eft1.…"},
		"mtls":  {Type: "mutualTLS", Description: "certificate of a node or a member"},
	}
	c.RejectUnknownQueryParameters = true
	c.Transformers = []huma.Transformer{transformError}
	return c
}

// OpenAPI is the description of the API as JSON; it is committed as docs/openapi.json.
func OpenAPI() ([]byte, error) {
	return newAPI(Options{Telemetry: observability.Discard()}).document()
}

func (a *API) document() ([]byte, error) {
	return json.MarshalIndent(a.huma.OpenAPI(), "", "  ")
}

// problems describes the errors of an operation.
func (a *API) problems(op operation, body bool) map[string]*huma.Response {
	codes := []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusInternalServerError}
	if op.method != http.MethodGet {
		codes = append(codes, http.StatusConflict)
	}
	if op.held {
		codes = append(codes, http.StatusPreconditionFailed, http.StatusPreconditionRequired)
	}
	if body {
		codes = append(codes, http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	codes = append(codes, http.StatusServiceUnavailable)
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[client.Problem](), true, "Problem")
	out := map[string]*huma.Response{}
	for _, code := range codes {
		out[strconv.Itoa(code)] = &huma.Response{
			Description: http.StatusText(code), Content: map[string]*huma.MediaType{typeProblem: {Schema: schema}},
		}
	}
	return out
}
