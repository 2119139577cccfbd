-- A store as the program with schema 2 wrote it: `sqlite3 rlhi.db .dump`.
BEGIN TRANSACTION;
CREATE TABLE rlhi_consent (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    user_id VARCHAR(128) NOT NULL,
    purpose VARCHAR(32) NOT NULL,
    granted BOOLEAN NOT NULL,
    decided_at VARCHAR(32) NOT NULL
);
INSERT INTO "rlhi_consent" VALUES(1,'u_1','train',0,'2026-01-01T00:00:00.000000+00:00');
CREATE TABLE rlhi_conversations (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    conversation_id VARCHAR(256) NOT NULL,
    user_id VARCHAR(128),
    started_at VARCHAR(32),
    language VARCHAR(64),
    toxic BOOLEAN,
    source VARCHAR(64) NOT NULL,
    UNIQUE (conversation_id)
);
INSERT INTO "rlhi_conversations" VALUES(1,'c','u_1','2026-01-01T00:00:00.000000+00:00',NULL,NULL,'rlhi');
CREATE TABLE rlhi_feedback (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    conversation_id VARCHAR(256) NOT NULL,
    event_id VARCHAR(256) NOT NULL,
    message_id VARCHAR(256),
    user_id VARCHAR(128),
    kind VARCHAR(32) NOT NULL,
    value TEXT,
    created_at VARCHAR(32),
    UNIQUE (conversation_id, event_id)
);
INSERT INTO "rlhi_feedback" VALUES(1,'c','e','m1','u_1','thumbs_down',NULL,'2026-01-01T00:00:00.000000+00:00');
CREATE TABLE rlhi_messages (
    conversation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    message_id VARCHAR(256) NOT NULL,
    role VARCHAR(16) NOT NULL,
    content TEXT NOT NULL,
    created_at VARCHAR(32),
    model TEXT,
    adapter TEXT,
    persona_digest VARCHAR(64),
    parent_id VARCHAR(256),
    latency_s FLOAT,
    input_tokens BIGINT,
    output_tokens BIGINT,
    PRIMARY KEY (conversation, sequence),
    UNIQUE (conversation, message_id),
    FOREIGN KEY(conversation) REFERENCES rlhi_conversations (number)
);
INSERT INTO "rlhi_messages" VALUES(1,0,'m0','user','Hello?','2026-01-01T00:00:00.000000+00:00',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "rlhi_messages" VALUES(1,1,'m1','assistant','Hi.','2026-01-01T00:00:00.000000+00:00','m',NULL,NULL,NULL,0.5,3,2);
INSERT INTO "rlhi_messages" VALUES(1,2,'m2','assistant','Hello!','2026-01-01T00:00:00.000000+00:00',NULL,NULL,NULL,'m0',NULL,NULL,NULL);
CREATE TABLE rlhi_meta (
    "key" VARCHAR(64) NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY ("key")
);
INSERT INTO "rlhi_meta" VALUES('schema','2');
CREATE TABLE rlhi_personas (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    user_id VARCHAR(128) NOT NULL,
    digest VARCHAR(64) NOT NULL,
    created_at VARCHAR(32) NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE rlhi_tombstones (
    user_id VARCHAR(128) NOT NULL,
    forgotten_at VARCHAR(32) NOT NULL,
    PRIMARY KEY (user_id)
);
CREATE INDEX ix_rlhi_conversations_user_id ON rlhi_conversations (user_id);
CREATE INDEX rlhi_personas_by_user ON rlhi_personas (user_id, number);
CREATE INDEX ix_rlhi_feedback_user_id ON rlhi_feedback (user_id);
CREATE INDEX rlhi_consent_by_user ON rlhi_consent (user_id, purpose, decided_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('rlhi_conversations',1);
INSERT INTO "sqlite_sequence" VALUES('rlhi_feedback',1);
INSERT INTO "sqlite_sequence" VALUES('rlhi_consent',1);
COMMIT;
