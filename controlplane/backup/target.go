package backup

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
)

// Target is where scheduled backups are kept. Names have no slashes. Calls return when their context ends.
type Target interface {
	// Put stores size bytes under name: whole, or not at all.
	Put(ctx context.Context, name string, r io.Reader, size int64) error
	// List returns the names of what is there.
	List(ctx context.Context) ([]string, error)
	// Get opens what is stored under name; the caller closes it. That there is nothing may be said by the first read.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// Delete removes it; what is not there is left alone.
	Delete(ctx context.Context, name string) error
}

// Place says where backups are kept.
type Place struct {
	// To is file:///directory, s3://bucket/prefix, or the https URL of an S3-compatible service with bucket and prefix.
	To string
	// Region is the bucket's.
	Region string
	// CredentialsFile holds the access key id and, on the next line, the secret key. It is read for every call.
	CredentialsFile string
	// CAFile holds the roots (PEM) that the service's certificate chains to; empty: the system's.
	CAFile string
}

// Validate checks p without looking anywhere.
func (p Place) Validate() error {
	_, err := p.url()
	return err
}

func (p Place) url() (*url.URL, error) {
	u, err := url.Parse(p.To)
	switch {
	case err != nil:
		return nil, fleet.Invalid("backup.to", "%.200q is not a URL such as file:///var/backups/edgefleet or s3://bucket/prefix", p.To)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fleet.Invalid("backup.to", "backup.to holds more than a place: keys belong in backup.credentials_file")
	case u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path) && u.Path != "/":
		return u, nil
	case u.Scheme == "s3" && u.Host != "", u.Scheme == "https" && strings.Trim(u.Path, "/") != "":
		if p.CredentialsFile == "" {
			return nil, fleet.Invalid("backup.credentials_file", "backup.credentials_file is not set: it holds the access key id and, on the next line, the secret key of %s", u.Host)
		}
		if u.Scheme == "s3" && p.Region == "" {
			return nil, fleet.Invalid("backup.region", "backup.region is not set: s3://%s needs the region of the bucket", u.Host)
		}
		return u, nil
	}
	return nil, fleet.Invalid("backup.to", "%.200q is neither file:///directory, s3://bucket/prefix nor https://service/bucket/prefix", p.To)
}

// Open prepares the target of p. It asks nobody yet, nor for the credentials: without them a member starts too.
func (p Place) Open() (Target, error) {
	u, err := p.url()
	if err != nil {
		return nil, err
	}
	if u.Scheme == "file" {
		return Directory(filepath.Clean(u.Path)), nil
	}
	transport, err := p.transport()
	if err != nil {
		return nil, err
	}
	endpoint, bucket := u.Host, strings.Trim(u.Path, "/")
	if u.Scheme == "s3" {
		endpoint, bucket = "s3."+p.Region+".amazonaws.com", path.Join(u.Host, bucket)
	}
	name, prefix, _ := strings.Cut(bucket, "/")
	c, err := minio.New(endpoint, &minio.Options{Creds: credentials.New(p), Secure: true, Region: p.Region, Transport: transport, MaxRetries: attempts})
	if err != nil {
		return nil, fleet.Invalid("backup.to", "%s: %v", p.To, err)
	}
	return bucketTarget{c, name, prefix}, nil
}

// attempts is how often one request is made; the loop tries again by itself.
const attempts = 2

// transport trusts the roots in CAFile.
func (p Place) transport() (http.RoundTripper, error) {
	t, err := minio.DefaultTransport(true)
	if err != nil || p.CAFile == "" {
		return t, err
	}
	pem, err := os.ReadFile(p.CAFile)
	if err != nil {
		return nil, fleet.Invalid("backup.ca_file", "%v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fleet.Invalid("backup.ca_file", "%s holds no PEM certificate", p.CAFile)
	}
	t.TLSClientConfig.RootCAs = roots
	return t, nil
}

// maxCredentials bounds the credentials file.
const maxCredentials = 4 << 10

// Retrieve implements credentials.Provider: new keys take effect without a restart.
func (p Place) Retrieve() (credentials.Value, error) {
	var v credentials.Value
	f, err := os.Open(p.CredentialsFile)
	if err != nil {
		return v, fleet.Invalid("backup.credentials_file", "%v", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxCredentials))
	if err != nil {
		return v, fleet.Invalid("backup.credentials_file", "%v", err)
	}
	words := strings.Fields(string(b))
	if len(words) != 2 {
		// What is in it is not shown.
		return v, fleet.Invalid("backup.credentials_file", "%s does not hold two lines: the access key id, and the secret key", p.CredentialsFile)
	}
	return credentials.Value{AccessKeyID: words[0], SecretAccessKey: words[1], SignerType: credentials.SignatureV4}, nil
}

// RetrieveWithCredContext implements credentials.Provider.
func (p Place) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return p.Retrieve()
}

// IsExpired implements credentials.Provider.
func (Place) IsExpired() bool { return true }

// bucketTarget keeps backups in a bucket of an S3-compatible service, below a prefix.
type bucketTarget struct {
	c            *minio.Client
	name, prefix string
}

func (b bucketTarget) key(name string) string { return path.Join(b.prefix, path.Base(name)) }

// Put implements Target: one request, so that a part of a backup is never seen.
func (b bucketTarget) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	_, err := b.c.PutObject(ctx, b.name, b.key(name), r, size, minio.PutObjectOptions{
		ContentType: snapshot.MediaType, DisableMultipart: true, SendContentMd5: true, // the service refuses what was damaged on the way
	})
	return b.explain("write", name, err)
}

// List implements Target.
func (b bucketTarget) List(ctx context.Context) ([]string, error) {
	prefix := b.prefix
	if prefix != "" {
		prefix += "/"
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing when it is given up
	var names []string
	for o := range b.c.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: prefix}) {
		if o.Err != nil {
			return nil, b.explain("list", "", o.Err)
		}
		names = append(names, path.Base(o.Key))
	}
	slices.Sort(names)
	return names, nil
}

// Get implements Target.
func (b bucketTarget) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	o, err := b.c.GetObject(ctx, b.name, b.key(name), minio.GetObjectOptions{})
	if err != nil {
		return nil, b.explain("read", name, err)
	}
	return o, nil
}

// Delete implements Target.
func (b bucketTarget) Delete(ctx context.Context, name string) error {
	return b.explain("delete", name, b.c.RemoveObject(ctx, b.name, b.key(name), minio.RemoveObjectOptions{}))
}

// explain names the place; the service's own words hold no secret.
func (b bucketTarget) explain(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s backup %s in bucket %s: %w", fleet.ErrUnavailable, verb, name, b.name, err)
}
