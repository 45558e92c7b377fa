-- Events in daily partitions of event time (nanoseconds since 1970). The primary key makes a second copy of an event
-- impossible: an event never changes its time. COLLATE "C" keeps the order of ids the same as on every member.
CREATE TABLE events (
	id              text COLLATE "C" NOT NULL,
	time            bigint NOT NULL,
	tenant          text COLLATE "C" NOT NULL,
	host            text COLLATE "C" NOT NULL,
	type            text COLLATE "C" NOT NULL,
	status          text COLLATE "C" NOT NULL,
	node            text COLLATE "C" NOT NULL,
	region          text COLLATE "C" NOT NULL,
	client_ip       text COLLATE "C" NOT NULL,
	method          text COLLATE "C" NOT NULL,
	path            text COLLATE "C" NOT NULL,
	point           text COLLATE "C" NOT NULL,
	parameter       text COLLATE "C" NOT NULL,
	response_status bigint NOT NULL,
	body            bytea NOT NULL,
	PRIMARY KEY (id, time)
) PARTITION BY RANGE (time);
CREATE INDEX events_tenant ON events (tenant, time, id);
CREATE INDEX events_time ON events (time, id);
CREATE INDEX events_host ON events (host, time, id);

-- The watermark of each node's boot.
CREATE TABLE marks (
	node      text COLLATE "C" NOT NULL,
	boot      text COLLATE "C" NOT NULL,
	through   bigint NOT NULL,
	ahead     text NOT NULL,
	gap_since bigint NOT NULL,
	updated   bigint NOT NULL,
	PRIMARY KEY (node, boot)
);
CREATE TABLE born (at bigint NOT NULL);
