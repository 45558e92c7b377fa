package client

// ReadEvents is the decoder behind Stream.
var ReadEvents = readEvents
