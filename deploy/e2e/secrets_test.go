package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/deploy/e2e/keyscan"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// The classes of secrets that a fleet has.
const (
	classCertKey   = "certificate key"
	classOriginKey = "origin client-certificate key"
	classAccount   = "ACME account key"
	classCA        = "CA key"
	classHead      = "head key"
	classAudit     = "audit key"
	classMaster    = "group master"
	classGroup     = "group key"
	classTicket    = "session-ticket key"
	classKEK       = "key-encryption key"
	classRecovery  = "recovery key"
	classMember    = "member's own key"
	classNode      = "node's own key"
	classTSIG      = "TSIG key"
	classAPIToken  = "API token"
	classJoinToken = "join token"
)

// secretClasses are all of them: a run in which one of them did not occur proves nothing about it.
var secretClasses = []string{
	classCertKey, classOriginKey, classAccount, classCA, classHead, classAudit, classMaster, classGroup, classTicket, classKEK, classRecovery,
	classMember, classNode, classTSIG, classAPIToken, classJoinToken,
}

// secrets are those of a running fleet, as an operator with its key-encryption key could learn them, and what was captured of
// what leaves its processes.
type secrets struct {
	*disaster
	collector *collector
	tap       *tap
	known     []keyscan.Secret
	seen      map[string]bool
	counts    map[string]int
	own       fleet.HostName
	// tsig is the key of a secondary at the address beside it.
	tsig, secondary string
	// captured is what else was seen: answers, snapshots, output of programs.
	captured map[string][]byte
}

// keep notes secrets of one name; the same ones are counted once.
func (s *secrets) keep(found []keyscan.Secret, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	fresh := false
	for _, f := range found {
		if key := f.Class + "\x00" + string(f.Value); !s.seen[key] {
			s.seen[key], fresh = true, true
			s.known = append(s.known, f)
		}
	}
	if fresh {
		s.counts[found[0].Class]++
	}
}

func (s *secrets) value(class, name string, v []byte) {
	s.t.Helper()
	s.keep([]keyscan.Secret{{Class: class, Name: name, Value: v}}, nil)
}

// token keeps the secret part of a token: what stands before it is its public name, and behind it a fingerprint.
func (s *secrets) token(class, name, text string) {
	s.t.Helper()
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) < 3 {
		s.t.Fatalf("%s %s has %d parts", class, name, len(parts))
	}
	s.value(class, name, []byte(parts[2]))
}

// learnAll learns what can be read on the fleet's machine.
func (s *secrets) learnAll() {
	s.t.Helper()
	s.token(classAPIToken, "the operator's", s.Token)
	s.token(classAPIToken, "the tenant's", s.TenantToken)
	s.keep(keyscan.PEM(classRecovery, "recovery.key", read(s.t, s.recovery)))
	for pattern, class := range map[string]string{"data/m*/identity/*.key": classMember, "data/n*/identity/*.key": classNode} {
		files, err := filepath.Glob(filepath.Join(s.dir, pattern))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, file := range files {
			name, _ := filepath.Rel(s.dir, file)
			switch b := read(s.t, file); {
			case bytes.Contains(b, []byte("PRIVATE KEY")):
				s.keep(keyscan.PEM(class, name, b))
			default:
				s.value(class, name, b)
			}
		}
	}
	tokens, err := filepath.Glob(filepath.Join(s.dir, "config", "*.token"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, file := range tokens {
		s.token(classJoinToken, filepath.Base(file), string(read(s.t, file)))
	}
}

// keks learns the key-encryption keys of a member's file.
func (s *secrets) keks(member string) *keyring.KEK {
	s.t.Helper()
	kek, err := keyring.LoadKEK(s.kek(member))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(read(s.t, s.kek(member)))) {
		_, text, _ := strings.Cut(strings.TrimSpace(line), ":")
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			s.t.Fatal(err)
		}
		s.value(classKEK, "in "+member+".kek", key)
	}
	return kek
}

// learn opens a snapshot, and learns every secret in it and every key that is derived from one.
func (s *secrets) learn(snapshot string) {
	s.t.Helper()
	s.learnAll()
	kek := s.keks("m1")
	raw := read(s.t, snapshot)
	s.captured["snapshot "+filepath.Base(snapshot)] = raw
	loaded, err := backup.Load(bytes.NewReader(raw), kek)
	if err != nil {
		s.t.Fatal(err)
	}
	v := loaded.State.Read()
	open := func(sealed fleet.Sealed, aad []byte) []byte {
		s.t.Helper()
		plain, err := kek.Open(sealed, aad)
		if err != nil {
			s.t.Fatal(err)
		}
		return plain
	}
	for _, c := range v.Certificates() {
		s.keep(keyscan.DER(classCertKey, fmt.Sprintf("%s %d", c.Host, c.Generation), open(c.Key, keyring.CertKeyAAD(c.Tenant, c.Host, c.SPKI, c.Generation))))
	}
	for _, o := range v.Orders() {
		s.keep(keyscan.DER(classCertKey, fmt.Sprintf("order of %s %d", o.Host, o.Generation), open(o.Key, keyring.CertKeyAAD(o.Tenant, o.Host, o.SPKI, o.Generation))))
	}
	for _, t := range v.Tenants() {
		for _, c := range v.OriginCertsOfTenant(t.ID) {
			s.keep(keyscan.DER(classOriginKey, string(c.Host), open(c.Key, keyring.OriginKeyAAD(c.OriginCert))))
		}
	}
	for _, e := range v.EntriesBelow("") {
		var sealed fleet.Sealed
		if err := fleet.DecodeStrict(e.Value, &sealed); err != nil {
			s.t.Fatal(err)
		}
		var account struct {
			Key []byte `json:"key"`
		}
		if err := json.Unmarshal(open(sealed, keyring.StorageAAD(e.Key)), &account); err != nil {
			s.t.Fatalf("%s: %v", e.Key, err)
		}
		s.keep(keyscan.DER(classAccount, e.Key, account.Key))
	}
	s.learnCluster(v, open)
}

// learnCluster learns the cluster's own secrets, and what is derived from the group master.
func (s *secrets) learnCluster(v *state.View, open func(fleet.Sealed, []byte) []byte) {
	s.t.Helper()
	c, ok := v.Cluster()
	if !ok || len(c.Secrets) == 0 {
		s.t.Fatal("the snapshot has no cluster")
	}
	classes := map[fleet.SecretName]string{
		fleet.SecretMemberCA: classCA, fleet.SecretNodeCA: classCA, fleet.SecretAPICA: classCA, fleet.SecretHeadKey: classHead, fleet.SecretAuditKey: classAudit, fleet.SecretGroupMaster: classMaster,
	}
	for name, sealed := range c.Secrets {
		plain := open(sealed, keyring.SecretAAD(c.ID, name))
		switch class := classes[name]; class {
		case "":
			s.t.Errorf("the secret %s has no class here", name)
		case classCA:
			s.keep(keyscan.DER(class, string(name), plain))
		case classHead, classAudit:
			s.keep(keyscan.Key(class, string(name), ed25519.NewKeyFromSeed(plain)))
		case classMaster:
			s.value(class, string(name), plain)
			for _, g := range v.Groups() {
				s.derived(v, g.Name, plain)
			}
		}
	}
}

// derived learns the keys that a group has now, and had in the epochs of this incarnation.
func (s *secrets) derived(v *state.View, g fleet.GroupName, master []byte) {
	s.t.Helper()
	last := v.EpochKey(g)
	for epoch := last; epoch > 0 && epoch > last-v.Epoch(g).Number; epoch-- {
		key, err := keyring.DeriveGroupKey(master, g, epoch)
		if err != nil {
			s.t.Fatal(err)
		}
		s.value(classGroup, key.String(), groupKey(s.t, key))
		for _, tenant := range v.Tenants() {
			now := keyring.TicketPeriodOf(time.Now())
			for _, period := range []int64{now - 1, now, now + 1} {
				ticket, err := key.TicketKey(tenant.ID, period)
				if err != nil {
					s.t.Fatal(err)
				}
				s.value(classTicket, fmt.Sprintf("of %s in epoch %d", tenant.ID, epoch), ticket[:])
			}
		}
	}
}

// groupKey is the key within k, which has no way to give it away.
func groupKey(t *testing.T, k keyring.GroupKey) []byte {
	t.Helper()
	field := reflect.ValueOf(k).FieldByName("key")
	out := make([]byte, field.Len())
	for i := range out {
		out[i] = byte(field.Index(i).Uint())
	}
	return out
}

// pair is a certificate for a name, by an authority of its own, with its key, PEM.
func pair(t *testing.T, name string) (chain, private string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(60 * 24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// provision gives the fleet secrets of every kind: an uploaded certificate, a certificate for an origin, a join token, a
// TSIG key; then new private keys for every certificate. Members log everything from their next start on.
func (s *secrets) provision() {
	s.t.Helper()
	ctx, tenant := s.t.Context(), s.tenant(s.t)
	s.own = "own.shop.example"
	const origin = "https://127.0.0.9:9443"
	h, err := client.Post[client.HostView](ctx, tenant, tenantPath(s.Tenant, "hosts"), client.HostCreate{Name: string(s.own), Origins: []fleet.Origin{{URL: origin}}, Mode: fleet.ModeBlock, Certificate: string(fleet.CertificateOwn)})
	if err != nil {
		s.t.Fatal(err)
	}
	traffic := record(s.t, h, "traffic")
	s.setDNS(s.t, traffic.Name, traffic.Type, traffic.Value)
	chain, key := pair(s.t, string(s.own))
	s.keep(keyscan.PEM(classCertKey, "uploaded", []byte(key)))
	path := tenantPath(s.Tenant, "hosts/"+string(s.own))
	if err := tenant.Do(ctx, http.MethodPost, path+"/certificate", nil, client.CertificateUpload{Certificate: chain, Key: key}, nil); err != nil {
		s.t.Fatal(err)
	}
	chain, key = pair(s.t, "edge.shop.example")
	s.keep(keyscan.PEM(classOriginKey, "given", []byte(key)))
	if err := tenant.Do(ctx, http.MethodPost, path+"/origins/certificate", nil, client.OriginCertSet{Origin: origin, Certificate: chain, Key: key}, nil); err != nil {
		s.t.Fatal(err)
	}
	for _, kind := range []fleet.JoinKind{fleet.JoinMember, fleet.JoinNode} {
		token, err := client.Post[client.JoinTokenCreated](ctx, s.operator(s.t), "/v1/join-tokens", client.JoinTokenCreate{Kind: kind})
		if err != nil {
			s.t.Fatal(err)
		}
		s.token(classJoinToken, "for a "+string(kind), token.Secret)
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		s.t.Fatal(err)
	}
	s.value(classTSIG, "of the secondary", secret)
	s.tsig, s.secondary = base64.StdEncoding.EncodeToString(secret), loopback()
	file := filepath.Join(s.dir, "config", "secondary.key")
	write(s.t, file, fmt.Sprintf("key \"secondary.\" {\n\talgorithm hmac-sha256;\n\tsecret %q;\n};\n", s.tsig))
	for _, m := range s.Members {
		write(s.t, s.config(m.ID), edit(string(read(s.t, s.config(m.ID))), []string{"log_level: debug", fmt.Sprintf("dns: {secondaries: [{address: '%s:53', tsig_key_file: %s}]}", s.secondary, file)}))
	}
	for _, e := range s.Edges {
		write(s.t, s.config(e.ID), edit(string(read(s.t, s.config(e.ID))), []string{"log_level: debug"}))
	}
}

// rekey has every certificate renewed with a new key, in a new epoch, and waits until that is done.
func (s *secrets) rekey() {
	s.t.Helper()
	s.ctl("group", "rekey", string(fleet.DefaultGroup), "--yes", "--reason", "a node may have been copied")
	await(s.t, "every ordered certificate has a new key", func() bool {
		c, err := client.Get[client.CertificateView](s.t.Context(), s.tenant(s.t), tenantPath(s.Tenant, "hosts/"+string(s.Host)+"/certificate"), nil)
		return err == nil && c.Generation > 1 && c.Verified
	})
}

// transfer fetches the zone as a secondary does.
func (s *secrets) transfer() {
	s.t.Helper()
	dialer := dns.Client{Net: "tcp", TsigSecret: map[string]string{"secondary.": s.tsig}, Dialer: from(s.secondary)}
	await(s.t, "the zone is transferred to the secondary", func() bool {
		conn, err := dialer.Dial(s.DNS)
		if err != nil {
			return false
		}
		defer func() { _ = conn.Close() }()
		conn.TsigSecret = dialer.TsigSecret
		q := new(dns.Msg).SetAxfr(string(s.Zone) + ".")
		q.SetTsig("secondary.", dns.HmacSHA256, 300, time.Now().Unix())
		in, err := (&dns.Transfer{Conn: conn, TsigSecret: dialer.TsigSecret}).In(q, s.DNS)
		if err != nil {
			return false
		}
		records := 0
		for e := range in {
			if e.Error != nil {
				return false
			}
			records += len(e.RR)
		}
		return records > 2
	})
}

// remember keeps what a program or the API said.
func (s *secrets) remember(name string, b []byte) { s.captured[name] = append(s.captured[name], b...) }
