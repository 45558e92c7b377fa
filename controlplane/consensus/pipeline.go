package consensus

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// network is Raft's transport with pipelines that cannot stall.
//
// Raft (1.7.3 and 1.8.0) stops reading a pipeline's answers at the first that is not a success: a follower's disk failed,
// or the connection. If it then sends once more before it notices, the transport waits for someone to take the last
// answer, and the sender for the transport, for ever: the follower gets heartbeats and never another entry, for as long as
// the leader leads; with two such followers of three members nothing is committed any more.
type network struct{ *raft.NetworkTransport }

// AppendEntriesPipeline implements raft.Transport.
func (n network) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := n.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return newPipeline(p), nil
}

var errBrokenPipeline = errors.New("a request of this pipeline was not answered with success")

// pipeline takes every answer from the one below, so that it never waits; Raft sees those up to the first bad one.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	broken  atomic.Bool
	closed  chan struct{}
	closing sync.Once
}

func newPipeline(p raft.AppendPipeline) *pipeline {
	out := &pipeline{AppendPipeline: p, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go out.drain()
	return out
}

// drain ends with Close.
func (p *pipeline) drain() {
	for {
		var answer raft.AppendFuture
		select {
		case answer = <-p.AppendPipeline.Consumer():
		case <-p.closed:
			return
		}
		if p.broken.Load() {
			continue // nobody looks at it
		}
		if answer.Error() != nil || !answer.Response().Success {
			p.broken.Store(true)
		}
		select {
		case p.answers <- answer:
		case <-p.closed:
			return
		}
	}
}

// AppendEntries implements raft.AppendPipeline; after a bad answer it refuses, upon which Raft makes a new pipeline.
func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, res *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if p.broken.Load() {
		return nil, errBrokenPipeline
	}
	return p.AppendPipeline.AppendEntries(req, res)
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.closing.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}
