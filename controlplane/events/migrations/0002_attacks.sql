-- The hits of each attack within one UTC day; what belongs together over midnight is joined when it is read.
CREATE TABLE attacks (
	grp       text COLLATE "C" NOT NULL,
	day       text COLLATE "C" NOT NULL,
	first     bigint NOT NULL,
	last      bigint NOT NULL,
	tenant    text COLLATE "C" NOT NULL,
	host      text COLLATE "C" NOT NULL,
	type      text COLLATE "C" NOT NULL,
	parameter text COLLATE "C" NOT NULL,
	hits      bigint NOT NULL,
	blocked   bigint NOT NULL,
	PRIMARY KEY (grp, first)
);
CREATE INDEX attacks_tenant ON attacks (tenant, last, grp);
CREATE INDEX attacks_day ON attacks (day);
