package issuance

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgefleet/edgefleet/fleet"
)

// storedAccount is the CA account as Storage has it. The key is stored before the CA hears of it, so that an account that
// was made and not stored is found again by its key.
type storedAccount struct {
	Key      []byte `json:"key"` // PKCS #8 DER
	Location string `json:"location,omitempty"`
	Orders   string `json:"orders,omitempty"`
}

// place is where the account of this CA is stored.
func (i *Issuer) place() string {
	name := strings.NewReplacer("https://", "", "http://", "", ":", "_", "/", "_", "?", "_").Replace(i.o.Directory)
	return "acme/" + name + "/account.key"
}

// account loads the account with the CA, or makes it.
func (f *flow) account(ctx context.Context) (acme.Account, error) {
	i := f.issuer
	if a, ok, err := f.loadAccount(ctx); err != nil || ok {
		return a, err
	}
	if err := i.o.Storage.Lock(ctx, i.place()); err != nil {
		return acme.Account{}, f.fail(fmt.Errorf("lock ACME account: %w", err))
	}
	defer func() { _ = i.o.Storage.Unlock(context.WithoutCancel(ctx), i.place()) }() // the lock is this process's own
	a, ok, err := f.loadAccount(ctx)
	if err != nil || ok {
		return a, err
	}
	if a.PrivateKey == nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return a, f.fail(fmt.Errorf("generate ACME account key: %w", err))
		}
		if err := f.storeAccount(ctx, acme.Account{PrivateKey: key}); err != nil {
			return a, err
		}
		a.PrivateKey = key
	}
	if a, err = f.register(ctx, a.PrivateKey); err != nil {
		return a, err
	}
	return a, f.storeAccount(ctx, a)
}

// register makes the account of key with the CA, or finds it.
func (f *flow) register(ctx context.Context, key crypto.Signer) (acme.Account, error) {
	i := f.issuer
	a := acme.Account{PrivateKey: key, TermsOfServiceAgreed: true}
	if i.o.Email != "" {
		a.Contact = []string{"mailto:" + i.o.Email}
	}
	d, err := i.dir(ctx)
	if err != nil {
		return a, err
	}
	switch e := i.o.ExternalAccount; {
	case e != nil:
		if err := a.SetExternalAccountBinding(ctx, i.client, acme.EAB{KeyID: e.KeyID, MACKey: e.MACKey}); err != nil {
			return a, f.fail(fleet.Invalid("acme.external_account", "the external account binding cannot be used: its MAC key must be base64url: %v", err))
		}
	case d.Meta != nil && d.Meta.ExternalAccountRequired:
		return a, f.fail(fleet.Invalid("acme.external_account", "the CA at %s demands an external account: set acme.external_account_id and acme.external_account_key_file to what it gave you", i.o.Directory))
	}
	a, err = i.client.NewAccount(ctx, a)
	if err != nil {
		return a, fmt.Errorf("register account: %w", err)
	}
	return a, nil
}

// loadAccount reports false for an account that the CA may not know yet.
func (f *flow) loadAccount(ctx context.Context) (acme.Account, bool, error) {
	b, err := f.issuer.o.Storage.Load(ctx, f.issuer.place())
	if errors.Is(err, fs.ErrNotExist) {
		return acme.Account{}, false, nil
	}
	if err != nil {
		return acme.Account{}, false, f.fail(fmt.Errorf("load ACME account: %w", err))
	}
	defer clear(b)
	var s storedAccount
	err = fleet.DecodeStrict(b, &s)
	var key any
	if err == nil {
		key, err = x509.ParsePKCS8PrivateKey(s.Key)
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return acme.Account{}, false, f.fail(fleet.NewError(fleet.ErrCorrupt, "account", "the stored ACME account of %s cannot be read", f.issuer.o.Directory))
	}
	return acme.Account{Status: acme.StatusValid, PrivateKey: signer, Location: s.Location, Orders: s.Orders}, s.Location != "", nil
}

func (f *flow) storeAccount(ctx context.Context, a acme.Account) error {
	der, err := x509.MarshalPKCS8PrivateKey(a.PrivateKey)
	if err != nil {
		return f.fail(fmt.Errorf("encode ACME account key: %w", err))
	}
	b, err := json.Marshal(storedAccount{Key: der, Location: a.Location, Orders: a.Orders})
	clear(der)
	if err != nil {
		return f.fail(fmt.Errorf("encode ACME account: %w", err))
	}
	defer clear(b)
	if err := f.issuer.o.Storage.Store(ctx, f.issuer.place(), b); err != nil {
		return f.fail(fmt.Errorf("store ACME account: %w", err))
	}
	f.issuer.at(a.Location)
	return nil
}
