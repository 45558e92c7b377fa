package command_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
)

// fill sets every field of a body, however deep, so that no field of the encoding is left out of the golden files.
func fill(t *testing.T, b command.Body) {
	t.Helper()
	fillValue(t, reflect.ValueOf(b).Elem(), strings.ToLower(reflect.TypeOf(b).Elem().Name()))
}

func fillValue(t *testing.T, v reflect.Value, name string) {
	t.Helper()
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 11, 5, 1, 2, 3, 0, time.UTC)))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("192.0.2.1")))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.MustParsePrefix("10.0.0.0/8")))
		return
	}
	switch v.Kind() { //nolint:exhaustive // no command has fields of the other kinds
	case reflect.Struct:
		for i := range v.NumField() {
			fillValue(t, v.Field(i), strings.ToLower(v.Type().Field(i).Name))
		}
	case reflect.String:
		v.SetString(name)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(len(name)))
	case reflect.Uint8, reflect.Uint16, reflect.Uint64:
		v.SetUint(uint64(len(name)))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fillValue(t, v.Index(0), name)
		fillValue(t, v.Index(1), name+"2")
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillValue(t, v.Elem(), name)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fillValue(t, key, name)
		fillValue(t, value, name)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	default:
		t.Fatalf("%s has the kind %s, which this test cannot fill", name, v.Kind())
	}
}
