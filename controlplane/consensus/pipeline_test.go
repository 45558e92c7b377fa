package consensus_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
)

// followed is a pipeline to a follower that answers as told. As that of Raft's transport, it takes a request when the one
// before was answered, and gives an answer when somebody takes it.
type followed struct {
	requests chan *raft.AppendEntriesResponse
	answers  chan raft.AppendFuture
	closed   chan struct{}
}

func (f *followed) AppendEntries(_ *raft.AppendEntriesRequest, res *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	select {
	case f.requests <- res:
		return future{res: res}, nil
	case <-f.closed:
		return nil, raft.ErrPipelineShutdown
	}
}

func (f *followed) Consumer() <-chan raft.AppendFuture { return f.answers }

func (f *followed) Close() error {
	close(f.closed)
	return nil
}

func (f *followed) answer(err error, success bool) {
	for {
		select {
		case res := <-f.requests:
			res.Success = success
			select {
			case f.answers <- future{res: res, err: err}:
			case <-f.closed:
				return
			}
		case <-f.closed:
			return
		}
	}
}

type future struct {
	raft.AppendFuture
	res *raft.AppendEntriesResponse
	err error
}

func (f future) Error() error                          { return f.err }
func (f future) Response() *raft.AppendEntriesResponse { return f.res }

func TestASenderIsNeverHeldUpByAnswersThatNobodyReadsAnyMore(t *testing.T) {
	for name, bad := range map[string]error{"a follower that refuses": nil, "a connection that breaks": errors.New("broken")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &followed{requests: make(chan *raft.AppendEntriesResponse), answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
				go f.answer(bad, false)
				p := consensus.NewPipeline(f)
				if _, err := p.AppendEntries(nil, &raft.AppendEntriesResponse{}); err != nil {
					t.Fatal(err)
				}
				<-p.Consumer() // the bad answer, after which Raft reads no more
				for range 5 {  // it may send a few times before it notices; a stall is a deadlock of the bubble
					if _, err := p.AppendEntries(nil, &raft.AppendEntriesResponse{}); err == nil {
						t.Error("a pipeline with a bad answer took another request")
					}
				}
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

func TestRequestsThatWereUnderWayBeforeABadAnswerDoNotHoldUpTheSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &followed{requests: make(chan *raft.AppendEntriesResponse, 4), answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
		p := consensus.NewPipeline(f)
		for range 4 {
			if _, err := p.AppendEntries(nil, &raft.AppendEntriesResponse{}); err != nil {
				t.Fatal(err)
			}
		}
		go f.answer(nil, false)
		<-p.Consumer()
		synctest.Wait()
		if len(f.requests) > 0 {
			t.Errorf("%d requests wait for answers that nobody reads", len(f.requests))
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
