package sni_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/sni"
)

func TestLookupFindsNamesAsClientsWriteThem(t *testing.T) {
	var table sni.Table
	cert := &tls.Certificate{}
	table.Replace([]sni.Entry{{Name: "api.example.com", Certificate: cert}, {Name: "none.example.com"}})
	for name, want := range map[string]bool{
		"api.example.com":   true,
		"API.Example.COM":   true,
		"api.example.com.":  true,
		"api.example.com..": false,
		"example.com":       false,
		"x.api.example.com": false,
		"none.example.com":  false,
		"":                  false,
		".":                 false,
	} {
		if got, ok := table.Lookup(name); ok != want || (ok && got != cert) {
			t.Errorf("%q: found %v", name, ok)
		}
	}
	if n := table.Len(); n != 1 {
		t.Errorf("%d names", n)
	}
}

func TestWildcardsStandForOneLabel(t *testing.T) {
	var table sni.Table
	wild, exact, deep := &tls.Certificate{}, &tls.Certificate{OCSPStaple: []byte{1}}, &tls.Certificate{OCSPStaple: []byte{2}}
	table.Replace([]sni.Entry{
		{Name: "*.example.com", Certificate: wild},
		{Name: "api.example.com", Certificate: exact},
		{Name: "*.b.example.com", Certificate: deep},
		{Name: "*.none.example.com"},
	})
	for name, want := range map[string]*tls.Certificate{
		"shop.example.com":         wild,
		"SHOP.Example.com.":        wild,
		"none.example.com":         wild,
		"api.example.com":          exact,
		"x.b.example.com":          deep,
		"b.example.com":            wild,
		"example.com":              nil,
		".example.com":             nil,
		"*.example.com":            nil,
		"a.shop.example.com":       nil,
		"x.none.example.com":       nil,
		"com":                      nil,
		"":                         nil,
		"shop.example.com..":       nil,
		"shop.example.\u212aom":    nil,
		"shop.example.com.evil.io": nil,
	} {
		if got, ok := table.Lookup(name); got != want || ok != (want != nil) {
			t.Errorf("%q: found %v, the wrong certificate %v", name, ok, got != want)
		}
	}
	if n := table.Len(); n != 3 {
		t.Errorf("%d names", n)
	}
}

func TestALookupAllocatesNothing(t *testing.T) {
	var table sni.Table
	table.Replace([]sni.Entry{{Name: "*.example.com", Certificate: &tls.Certificate{}}, {Name: "api.example.com", Certificate: &tls.Certificate{}}})
	for _, name := range []string{"api.example.com", "shop.example.com", "shop.example.com.", "nobody.example.org"} {
		if n := testing.AllocsPerRun(100, func() { table.Lookup(name) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestZeroTableIsEmpty(t *testing.T) {
	var table sni.Table
	if _, ok := table.Lookup("api.example.com"); ok || table.Len() != 0 {
		t.Error("an empty table holds a name")
	}
}

func TestReplaceRemovesWhatIsNotNamedAgain(t *testing.T) {
	var table sni.Table
	table.Replace([]sni.Entry{{Name: "a.example.com", Certificate: &tls.Certificate{}}})
	table.Replace([]sni.Entry{{Name: "b.example.com", Certificate: &tls.Certificate{}}})
	if _, ok := table.Lookup("a.example.com"); ok {
		t.Error("a removed name is still served")
	}
	if _, ok := table.Lookup("b.example.com"); !ok {
		t.Error("a new name is not served")
	}
}

func TestALargeTableFindsWhatAMapWould(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 10, 1000, 200_000} {
		entries, want := make([]sni.Entry, n), map[string]*tls.Certificate{}
		for i := range entries {
			// Every name twice, more or less: the last one counts. A wildcard and an exact name have the same letters.
			name := fmt.Sprintf("h%d.example.com", random.IntN(1+n/2))
			if random.IntN(3) == 0 {
				name = "*." + name
			}
			entries[i] = sni.Entry{Name: fleet.HostName(name), Certificate: &tls.Certificate{OCSPStaple: []byte{1}}}
			want[name] = entries[i].Certificate
		}
		var table sni.Table
		table.Replace(entries)
		if table.Len() != len(want) {
			t.Errorf("of %d entries: %d names, wanted %d", n, table.Len(), len(want))
		}
		for i := range n {
			name := fmt.Sprintf("h%d.example.com", i)
			if got, _ := table.Lookup(name); got != want[name] {
				t.Fatalf("of %d entries, %s: the wrong certificate, or none: %v", n, name, got)
			}
			if got, _ := table.Lookup("shop." + name); got != want["*."+name] {
				t.Fatalf("of %d entries, %s: the wrong certificate, or none: %v", n, "shop."+name, got)
			}
		}
	}
}

func TestHandshake(t *testing.T) {
	cert := selfSigned(t, "api.example.com")
	var table sni.Table
	table.Replace([]sni.Entry{{Name: "api.example.com", Certificate: &cert}})
	for name, tc := range map[string]struct {
		server  string
		version uint16
		refused bool
	}{
		"with a known name":                {server: "api.example.com"},
		"with a known name in upper case":  {server: "API.EXAMPLE.COM"},
		"with a known name by TLS 1.2":     {server: "api.example.com", version: tls.VersionTLS12},
		"with an unknown name":             {server: "other.example.com", refused: true},
		"with an unknown name by TLS 1.2":  {server: "other.example.com", version: tls.VersionTLS12, refused: true},
		"without a name":                   {refused: true},
		"with an address instead of names": {server: "127.0.0.1", refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			err := handshake(t, &tls.Config{GetCertificate: table.GetCertificate}, &tls.Config{ServerName: tc.server, InsecureSkipVerify: true, MaxVersion: tc.version})
			switch {
			case !tc.refused && err != nil:
				t.Errorf("refused: %v", err)
			case tc.refused && alertOf(err) != "tls: unrecognized name":
				t.Errorf("got %v, want the alert unrecognized_name", err)
			}
		})
	}
}

// alertOf is the alert that the server sent, as the client reports it.
func alertOf(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return op.Err.Error()
	}
	return ""
}

func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	a, b := net.Pipe()
	defer func() { _ = a.Close() }()
	defer func() { _ = b.Close() }()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := tls.Server(a, server).HandshakeContext(ctx); err == nil {
			_, _ = a.Read(make([]byte, 1)) // takes what the client sends last
		}
	})
	err := tls.Client(b, client).HandshakeContext(ctx)
	_ = b.Close()
	wg.Wait()
	return err
}

func TestLookupsGoOnDuringReplacement(t *testing.T) {
	var table sni.Table
	entries := []sni.Entry{{Name: "api.example.com", Certificate: &tls.Certificate{}}}
	table.Replace(entries)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, ok := table.Lookup("api.example.com"); !ok {
					t.Error("the name was away for a moment")
					return
				}
			}
		})
	}
	for i := range 1000 {
		table.Replace(append(entries, sni.Entry{Name: fleet.HostName(fmt.Sprintf("h%d.example.com", i)), Certificate: &tls.Certificate{}}))
	}
	close(done)
	wg.Wait()
}

func million() []sni.Entry {
	entries := make([]sni.Entry, 1_000_000)
	for i := range entries {
		entries[i] = sni.Entry{Name: fleet.HostName(fmt.Sprintf("host-%d.example.com", i)), Certificate: &tls.Certificate{}}
	}
	return entries
}

func BenchmarkLookupAmongAMillionNames(b *testing.B) {
	var table sni.Table
	entries := million()
	table.Replace(entries)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i += 7919 {
			if _, ok := table.Lookup(string(entries[i%len(entries)].Name)); !ok {
				b.Fail()
			}
		}
	})
}

// BenchmarkLookupLatency times single lookups of names in random order among a million, one in ten by a wildcard, and
// reports the median and the 99th percentile with the clock's own time in them, and the table's memory for a name.
func BenchmarkLookupLatency(b *testing.B) {
	var before, after runtime.MemStats
	entries := million()
	for i := range entries {
		if i%10 == 0 {
			entries[i].Name = "*." + entries[i].Name
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&before)
	var table sni.Table
	table.Replace(entries)
	runtime.GC()
	runtime.ReadMemStats(&after)
	names := make([]string, 1<<16)
	for i := range names {
		names[i] = strings.Replace(string(entries[mathrand.IntN(len(entries))].Name), "*", "shop", 1)
	}
	took := make([]time.Duration, 0, 1<<20)
	var buffer [256]byte
	for i := 0; b.Loop(); i++ {
		// As in a handshake, the name was just read, and is in the processor's cache; what the table has of it is not.
		name := unsafe.String(&buffer[0], copy(buffer[:], names[i%len(names)]))
		start := time.Now()
		_, ok := table.Lookup(name)
		d := time.Since(start)
		if !ok {
			b.Fatal("a name is not found")
		}
		if len(took) < cap(took) {
			took = append(took, d)
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(entries)), "B/name")
}

func BenchmarkReplaceAMillionNames(b *testing.B) {
	var table sni.Table
	entries := million()
	for b.Loop() {
		table.Replace(entries)
	}
}

func selfSigned(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
