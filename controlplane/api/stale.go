package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// headerAge is how long ago, in milliseconds, the member that answers a read from its own state heard from the leader;
// 0 if it leads, which a leader without a majority does for one raft_timeout; then its age counts from when it ceased to
// lead. It is absent if the member has not heard from a leader since it started.
const headerAge = "Edgefleet-Age"

// maxMaxAge bounds what a caller may bear.
const maxMaxAge = 365 * 24 * time.Hour

// own prepares the answer to a read from this member's own state: the headers say what it includes and how old that may
// be, and a state that is older than the caller bears is not shown.
func (a *API) own(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return nil
	}
	most, err := maxAge(r)
	if err != nil {
		return err
	}
	index := a.view().Index() // before the age is looked at: the answer includes at least that
	age, heard := a.age()
	switch {
	case most == 0 || heard && age <= most:
	case !heard:
		return fleet.NewError(fleet.ErrUnavailable, "query.max_age", "member %s has not heard from a leader since it started, so the age of what it has is not known: ask another member, or leave out max_age", a.o.Member)
	default:
		return fleet.NewError(fleet.ErrUnavailable, "query.max_age", "member %s heard from the leader %s ago, which is more than %s: ask another member, or for older data", a.o.Member, age.Round(time.Millisecond), most)
	}
	a.included(w, index)
	if heard {
		w.Header().Set(headerAge, strconv.FormatInt(age.Milliseconds(), 10))
	}
	return nil
}

// included says what an answer includes: everything up to an index of the log, in one life of the cluster.
func (a *API) included(w http.ResponseWriter, index uint64) {
	c, _ := a.view().Cluster()
	w.Header().Set(headerIndex, itoa(index))
	w.Header().Set(headerIncarnation, itoa(c.Incarnation))
}

// current refuses an age on a read that is never old.
func current(r *http.Request) error {
	if most, err := maxAge(r); err != nil || most == 0 {
		return err
	}
	return fleet.Invalid("query.max_age", "a linearizable read has no age: ask with consistency=stale, or leave out max_age")
}

// maxAge is how old a stale read may be, 0 if the caller does not care.
func maxAge(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("max_age")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxMaxAge {
		return 0, fleet.Invalid("query.max_age", "%.40q is not a duration above 0 such as 10s", text)
	}
	return d, nil
}

// age is how long ago this member heard from the leader; heard is false if it never did.
func (a *API) age() (age time.Duration, heard bool) {
	s := a.o.OwnStats()
	switch {
	case s.State == "leader":
		return 0, true
	case s.LastContactMS == nil:
		return 0, false
	}
	return time.Duration(*s.LastContactMS) * time.Millisecond, true
}
