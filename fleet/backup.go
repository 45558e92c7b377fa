package fleet

import "time"

// Backup is one file that the leader wrote to the place of the scheduled backups.
type Backup struct {
	Name string `json:"name"`
	// Time is when it was taken, Index what it includes of the log.
	Time  time.Time `json:"time"`
	Index uint64    `json:"index"`
}

// BackupStatus is how scheduled backups stand, as the member knows that makes them.
type BackupStatus struct {
	// Member leads, and makes the backups.
	Member MemberID `json:"member"`
	// To is the place, without keys; empty: none are scheduled.
	To string `json:"to,omitempty"`
	// EverySeconds is the time between two, Keep how many are kept.
	EverySeconds int64 `json:"every_seconds,omitempty"`
	Keep         int   `json:"keep,omitempty"`
	// Last is the newest that was made; nil if none is known.
	Last *Backup `json:"last,omitempty"`
	// AgeSeconds is how old Last is.
	AgeSeconds int64 `json:"age_seconds,omitempty"`
	// Error is why the latest attempt failed, and what to do; empty if it did not.
	Error string `json:"error,omitempty"`
	// Kept are the backups at the place, the oldest first, as of the latest attempt.
	Kept []Backup `json:"kept"`
}

// Stale says why backups need somebody's attention; empty if they do not.
func (s BackupStatus) Stale() string {
	age := time.Duration(s.AgeSeconds) * time.Second
	switch every := time.Duration(s.EverySeconds) * time.Second; {
	case s.To == "" && s.Error == "":
		return ""
	case s.Last == nil && s.Error != "":
		return "no backup is known: " + s.Error
	case s.Last != nil && age > 2*every && s.Error != "":
		return "the last backup is " + age.String() + " old, one is due every " + every.String() + ": " + s.Error
	case s.Last != nil && age > 2*every:
		return "the last backup is " + age.String() + " old, one is due every " + every.String()
	}
	return ""
}
