-- The SQLite database after the newest migration. Generated; see `make generate`.

CREATE TABLE action_checkpoint (
    id TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_action_checkpoint PRIMARY KEY (id),
    CONSTRAINT uq_action_checkpoint_sequence UNIQUE (sequence)
);

CREATE TABLE action_vtxo (
    action_id TEXT NOT NULL,
    vtxo_id TEXT NOT NULL,
    CONSTRAINT pk_action_vtxo PRIMARY KEY (action_id, vtxo_id),
    CONSTRAINT fk_action_vtxo_action_id FOREIGN KEY(action_id) REFERENCES action_checkpoint (id) ON DELETE CASCADE
);

CREATE INDEX ix_action_vtxo_vtxo_id ON action_vtxo (vtxo_id);

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE exit_child (
    exit_txid TEXT NOT NULL,
    child_tx BLOB NOT NULL,
    origin TEXT NOT NULL,
    CONSTRAINT pk_exit_child PRIMARY KEY (exit_txid)
);

CREATE TABLE exit_claim (
    txid TEXT NOT NULL,
    tx BLOB NOT NULL,
    CONSTRAINT pk_exit_claim PRIMARY KEY (txid)
);

CREATE TABLE exit_state (
    vtxo_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    history TEXT NOT NULL,
    movement_id INTEGER,
    CONSTRAINT pk_exit_state PRIMARY KEY (vtxo_id),
    CONSTRAINT fk_exit_state_movement_id FOREIGN KEY(movement_id) REFERENCES movement (id)
);

CREATE INDEX ix_exit_state_kind ON exit_state (kind);

CREATE INDEX ix_exit_state_movement_id ON exit_state (movement_id);

CREATE TABLE last_backup (
    fingerprint TEXT NOT NULL,
    number BIGINT NOT NULL,
    made_at TEXT NOT NULL,
    CONSTRAINT pk_last_backup PRIMARY KEY (fingerprint)
);

CREATE TABLE lease (
    id INTEGER NOT NULL,
    term BIGINT NOT NULL,
    CONSTRAINT pk_lease PRIMARY KEY (id),
    CONSTRAINT ck_lease_single_row CHECK (id = 1)
);

CREATE TABLE mailbox_checkpoint (
    id INTEGER NOT NULL,
    value BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pk_mailbox_checkpoint PRIMARY KEY (id),
    CONSTRAINT ck_mailbox_checkpoint_single_row CHECK (id = 1)
);

CREATE TABLE movement (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    status TEXT NOT NULL,
    subsystem_name TEXT NOT NULL,
    subsystem_kind TEXT NOT NULL,
    metadata TEXT NOT NULL,
    intended_balance_sat BIGINT NOT NULL,
    effective_balance_sat BIGINT NOT NULL,
    offchain_fee_sat BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    completed_at BIGINT,
    action_id TEXT,
    CONSTRAINT ck_movement_completed CHECK ((status = 'pending') = (completed_at IS NULL)),
    CONSTRAINT ck_movement_status CHECK (status IN ('pending', 'successful', 'failed', 'canceled')),
    CONSTRAINT uq_movement_action_id UNIQUE (action_id)
);

CREATE INDEX ix_movement_failed ON movement (id) WHERE status = 'failed';

CREATE TABLE movement_destination (
    movement_id INTEGER NOT NULL,
    role TEXT NOT NULL,
    position INTEGER NOT NULL,
    method_kind TEXT NOT NULL,
    method_value TEXT NOT NULL,
    amount_sat BIGINT NOT NULL,
    CONSTRAINT pk_movement_destination PRIMARY KEY (movement_id, role, position),
    CONSTRAINT ck_movement_destination_role CHECK (role IN ('sent_to', 'received_on')),
    CONSTRAINT fk_movement_destination_movement_id FOREIGN KEY(movement_id) REFERENCES movement (id) ON DELETE CASCADE
);

CREATE INDEX ix_movement_destination_method_value ON movement_destination (method_value);

CREATE TABLE movement_vtxo (
    movement_id INTEGER NOT NULL,
    role TEXT NOT NULL,
    position INTEGER NOT NULL,
    vtxo_id TEXT NOT NULL,
    CONSTRAINT pk_movement_vtxo PRIMARY KEY (movement_id, role, position),
    CONSTRAINT ck_movement_vtxo_role CHECK (role IN ('input', 'output', 'exited')),
    CONSTRAINT fk_movement_vtxo_movement_id FOREIGN KEY(movement_id) REFERENCES movement (id) ON DELETE CASCADE,
    CONSTRAINT uq_movement_vtxo_movement_id_role_vtxo_id UNIQUE (movement_id, role, vtxo_id)
);

CREATE TABLE onchain_block (
    height BIGINT NOT NULL,
    hash BLOB NOT NULL,
    CONSTRAINT pk_onchain_block PRIMARY KEY (height)
);

CREATE TABLE onchain_output (
    txid BLOB NOT NULL,
    vout BIGINT NOT NULL,
    value_sat BIGINT NOT NULL,
    script_pubkey BLOB NOT NULL,
    CONSTRAINT pk_onchain_output PRIMARY KEY (txid, vout)
);

CREATE TABLE onchain_transaction (
    txid BLOB NOT NULL,
    raw BLOB NOT NULL,
    confirmed_height BIGINT,
    confirmed_block_hash BLOB,
    confirmed_time BIGINT,
    first_seen BIGINT,
    last_seen BIGINT,
    CONSTRAINT pk_onchain_transaction PRIMARY KEY (txid)
);

CREATE TABLE onchain_wallet (
    id INTEGER NOT NULL,
    network TEXT NOT NULL,
    descriptor TEXT NOT NULL,
    last_revealed BIGINT,
    CONSTRAINT pk_onchain_wallet PRIMARY KEY (id),
    CONSTRAINT ck_onchain_wallet_single_row CHECK (id = 1)
);

CREATE TABLE paid_invoice (
    payment_hash BLOB NOT NULL,
    preimage BLOB NOT NULL,
    paid_at BIGINT NOT NULL,
    CONSTRAINT pk_paid_invoice PRIMARY KEY (payment_hash)
);

CREATE TABLE properties (
    id INTEGER NOT NULL,
    network TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    server_pubkey BLOB,
    server_mailbox_pubkey BLOB,
    recovery_pending BOOLEAN NOT NULL,
    CONSTRAINT pk_properties PRIMARY KEY (id),
    CONSTRAINT ck_properties_single_row CHECK (id = 1)
);

CREATE TABLE recovery_entry (
    vtxo_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    amount_sat BIGINT,
    reason TEXT,
    CONSTRAINT pk_recovery_entry PRIMARY KEY (vtxo_id)
);

CREATE TABLE recovery_run (
    id INTEGER NOT NULL,
    payload TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT,
    CONSTRAINT pk_recovery_run PRIMARY KEY (id),
    CONSTRAINT ck_recovery_run_single_row CHECK (id = 1)
);

CREATE TABLE recovery_vtxo (
    vtxo_id TEXT NOT NULL,
    CONSTRAINT pk_recovery_vtxo PRIMARY KEY (vtxo_id)
);

CREATE TABLE round_input (
    round_id INTEGER NOT NULL,
    vtxo_id TEXT NOT NULL,
    CONSTRAINT pk_round_input PRIMARY KEY (round_id, vtxo_id),
    CONSTRAINT fk_round_input_round_id FOREIGN KEY(round_id) REFERENCES round_state (id) ON DELETE CASCADE
);

CREATE INDEX ix_round_input_vtxo_id ON round_input (vtxo_id);

CREATE TABLE round_state (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    payload TEXT NOT NULL,
    movement_id INTEGER,
    unlock_hash BLOB,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT fk_round_state_movement_id FOREIGN KEY(movement_id) REFERENCES movement (id)
);

CREATE INDEX ix_round_state_movement_id ON round_state (movement_id);

CREATE INDEX ix_round_state_unlock_hash ON round_state (unlock_hash);

CREATE TABLE settled_receive (
    payment_hash BLOB NOT NULL,
    preimage BLOB NOT NULL,
    invoice TEXT NOT NULL,
    amount_sat BIGINT NOT NULL,
    settled_at BIGINT NOT NULL,
    CONSTRAINT pk_settled_receive PRIMARY KEY (payment_hash)
);

CREATE TABLE vtxo (
    id TEXT NOT NULL,
    amount_sat BIGINT NOT NULL,
    policy_kind TEXT NOT NULL,
    user_pubkey BLOB NOT NULL,
    server_pubkey BLOB NOT NULL,
    expiry_height BIGINT NOT NULL,
    exit_delta INTEGER NOT NULL,
    anchor_point TEXT NOT NULL,
    exit_depth INTEGER NOT NULL,
    exit_tx_weight_wu BIGINT NOT NULL,
    registered BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    state_kind TEXT NOT NULL,
    lock_movement_id INTEGER,
    lock_action_id TEXT,
    CONSTRAINT pk_vtxo PRIMARY KEY (id),
    CONSTRAINT ck_vtxo_lock_holder CHECK ((lock_movement_id IS NULL AND lock_action_id IS NULL) OR (state_kind = 'Locked' AND (lock_movement_id IS NULL OR lock_action_id IS NULL))),
    CONSTRAINT ck_vtxo_state_kind CHECK (state_kind IN ('Spendable', 'Locked', 'Spent', 'Exited')),
    CONSTRAINT ck_vtxo_amount CHECK (amount_sat >= 0),
    CONSTRAINT fk_vtxo_lock_action_id FOREIGN KEY(lock_action_id) REFERENCES action_checkpoint (id) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT fk_vtxo_lock_movement_id FOREIGN KEY(lock_movement_id) REFERENCES movement (id) DEFERRABLE INITIALLY DEFERRED
);

CREATE INDEX ix_vtxo_exit_depth ON vtxo (state_kind, exit_depth);

CREATE INDEX ix_vtxo_expiry_height ON vtxo (expiry_height, amount_sat DESC, id);

CREATE INDEX ix_vtxo_lock_action_id ON vtxo (lock_action_id);

CREATE INDEX ix_vtxo_lock_movement_id ON vtxo (lock_movement_id);

CREATE INDEX ix_vtxo_state_kind ON vtxo (state_kind, expiry_height, exit_depth DESC, amount_sat DESC, id);

CREATE INDEX ix_vtxo_unregistered ON vtxo (created_at, id) WHERE registered = 0 AND state_kind != 'Spent';

CREATE INDEX ix_vtxo_unspent ON vtxo (expiry_height, amount_sat DESC, id) WHERE state_kind != 'Spent' AND state_kind != 'Exited';

CREATE TABLE vtxo_body (
    vtxo_id TEXT NOT NULL,
    bare BLOB NOT NULL,
    genesis BLOB NOT NULL,
    CONSTRAINT pk_vtxo_body PRIMARY KEY (vtxo_id),
    CONSTRAINT fk_vtxo_body_vtxo_id FOREIGN KEY(vtxo_id) REFERENCES vtxo (id) ON DELETE CASCADE
);

CREATE TABLE vtxo_key (
    key_index BIGINT NOT NULL,
    public_key BLOB NOT NULL,
    CONSTRAINT pk_vtxo_key PRIMARY KEY (key_index),
    CONSTRAINT uq_vtxo_key_public_key UNIQUE (public_key)
);

CREATE TABLE vtxo_state (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    vtxo_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT fk_vtxo_state_vtxo_id FOREIGN KEY(vtxo_id) REFERENCES vtxo (id) ON DELETE CASCADE
);

CREATE INDEX ix_vtxo_state_vtxo_id ON vtxo_state (vtxo_id);
