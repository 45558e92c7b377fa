// Package quality measures what the real edge detects and what it wrongly blocks. It has no code but tests: they send
// requests as bytes over TLS to a proxy with the real rule engine, in front of an origin that answers.
//
// It owns the regression suite of the core rule set (testdata/crs.txt lists every test that does not pass, with the
// reason), a corpus of benign requests (testdata/benign), one of attacks (testdata/attacks), placed and encoded by code,
// and the table of figures in docs/detection.md. It owns no rule and no decision: those are package waf's. Nothing outside
// the machine is needed.
package quality
