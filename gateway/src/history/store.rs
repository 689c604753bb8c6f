//! The file: its tables, and how it stays within its bounds. One thread's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};

use super::{Record, Settings};

/// Says in the file's head whose it is.
const APPLICATION: i32 = 0x7467_6831;
/// Of the tables.
const VERSION: i32 = 1;
/// The least that `max_bytes` may be.
const LEAST: u64 = 1 << 20;
/// Rows that one batch removes where the file is too large: twice what it brings, and at least so many.
const REMOVED: usize = 2000;
/// What one more row may take, for a bound that is kept before the row is written.
const ROW: u64 = 4096;

const TABLES: &str = "
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    client TEXT,
    project TEXT,
    model TEXT,
    answered TEXT,
    tier TEXT,
    method TEXT NOT NULL,
    stream INTEGER NOT NULL,
    status INTEGER,
    outcome TEXT NOT NULL,
    kind TEXT,
    message TEXT,
    gave_up TEXT,
    attempts INTEGER NOT NULL,
    waited INTEGER NOT NULL,
    first_byte INTEGER,
    latency INTEGER NOT NULL,
    request_bytes INTEGER,
    input_tokens INTEGER,
    cached_tokens INTEGER,
    output_tokens INTEGER,
    thought_tokens INTEGER,
    rate_limited INTEGER NOT NULL,
    internal INTEGER NOT NULL,
    steps TEXT
);
CREATE TABLE minutes (
    minute INTEGER NOT NULL,
    client TEXT NOT NULL,
    model TEXT NOT NULL,
    kind TEXT NOT NULL,
    size INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    recovered INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    rate_limited INTEGER NOT NULL,
    internal INTEGER NOT NULL,
    PRIMARY KEY (minute, client, model, kind, size)
) WITHOUT ROWID;
CREATE INDEX calls_time ON calls (time);
CREATE INDEX calls_troubled ON calls (time) WHERE kind IS NOT NULL OR attempts > 1 OR waited > 0;
";

pub(super) struct Store {
    connection: Connection,
    max_bytes: u64,
    max_age: Duration,
    bytes: u64,
}

impl Store {
    /// The error is part of a sentence.
    pub(super) fn open(settings: &Settings) -> Result<Self, String> {
        if settings.max_bytes < LEAST {
            return Err(format!("max_bytes must be at least {LEAST}"));
        }
        private(&settings.file).map_err(|error| format!("cannot be opened: {error}"))?;
        let in_words = |error: rusqlite::Error| format!("cannot be opened: {error}");
        let connection = Connection::open(&settings.file).map_err(in_words)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(in_words)?;
        let of = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
        let tables =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        let fresh = tables.map_err(in_words)? == 0;
        if !fresh && of("application_id").map_err(in_words)? != APPLICATION {
            return Err("is a file of another program".to_owned());
        }
        let version = of("user_version").map_err(in_words)?;
        if !fresh && version != VERSION {
            return Err(format!("has version {version}, and this program reads {VERSION}"));
        }
        let prepare = || -> rusqlite::Result<()> {
            connection.pragma_update(None, "journal_mode", "wal")?;
            // What the process has written survives the process; a power cut may take the last commits, and never the file.
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.pragma_update(None, "journal_size_limit", 4 << 20)?;
            connection.pragma_update(None, "cache_size", -2048)?;
            if fresh {
                connection.execute_batch(&format!(
                    "BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; {TABLES} COMMIT;"
                ))?;
            }
            Ok(())
        };
        prepare().map_err(in_words)?;
        let mut store =
            Self { connection, max_bytes: settings.max_bytes, max_age: settings.max_age, bytes: 0 };
        store.bytes = store.used().map_err(in_words)?;
        Ok(store)
    }

    /// In use after the last batch.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All records in one transaction, or none. Removes what is too old and too much first, a bounded number of rows each time.
    pub(super) fn write(&mut self, batch: &[Arc<Record>], now: i64) -> rusqlite::Result<()> {
        let oldest = now.saturating_sub(i64::try_from(self.max_age.as_millis()).unwrap_or(i64::MAX));
        let many = (2 * batch.len()).max(REMOVED) as i64;
        let full = self.bytes.saturating_add(batch.len() as u64 * ROW / 4) > self.max_bytes;
        let old: Option<i64> =
            self.connection.prepare_cached("SELECT min(time) FROM calls")?.query_row([], |row| row.get(0))?;
        let old = old.is_some_and(|old| old < oldest);
        if batch.is_empty() && !full && !old {
            return Ok(());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if old {
            transaction
                .prepare_cached("DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE time < ?1 ORDER BY time LIMIT ?2)")?
                .execute(params![oldest, many])?;
        }
        if full {
            transaction
                .prepare_cached("DELETE FROM calls WHERE id IN (SELECT id FROM calls ORDER BY id LIMIT ?1)")?
                .execute(params![many])?;
        }
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO calls (time, request_id, client, project, model, answered, tier, method, stream, status, outcome, kind,
                 message, gave_up, attempts, waited, first_byte, latency, request_bytes, input_tokens, cached_tokens, output_tokens,
                 thought_tokens, rate_limited, internal, steps)
                 VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            )?;
            for record in batch {
                let r = &**record;
                let steps = Some(&r.steps)
                    .filter(|steps| steps.as_array().is_some_and(|steps| !steps.is_empty()))
                    .map(ToString::to_string);
                insert.execute(params![
                    r.time,
                    r.request_id,
                    r.client,
                    r.project,
                    r.model,
                    r.answered,
                    r.tier,
                    r.method,
                    r.stream,
                    r.status,
                    r.outcome,
                    r.kind,
                    r.message,
                    r.gave_up,
                    r.attempts,
                    signed(Some(r.waited)),
                    signed(r.first_byte),
                    signed(Some(r.latency)),
                    signed(r.request_bytes),
                    signed(r.input_tokens),
                    signed(r.cached_tokens),
                    signed(r.output_tokens),
                    signed(r.thought_tokens),
                    r.rate_limited,
                    r.internal,
                    steps,
                ])?;
            }
        }
        if old || full {
            // Sums go with the calls that they are of.
            transaction
                .prepare_cached("DELETE FROM minutes WHERE minute < (SELECT min(time) / 60000 FROM calls)")?
                .execute([])?;
        }
        sum_up(&transaction, batch)?;
        transaction.commit()?;
        self.bytes = self.used()?;
        Ok(())
    }

    fn used(&self) -> rusqlite::Result<u64> {
        let of = |pragma| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let pages = of("page_count")? - of("freelist_count")?;
        Ok(pages.saturating_mul(of("page_size")?).unsigned_abs())
    }
}

/// What one row of sums is of.
#[derive(PartialEq, Eq, Hash)]
struct Key<'a> {
    minute: i64,
    client: &'a str,
    model: &'a str,
    kind: &'a str,
    size: i64,
}

impl<'a> Key<'a> {
    fn of(record: &'a Record) -> Self {
        Self {
            minute: record.time.div_euclid(60_000),
            client: record.client.as_deref().unwrap_or(""),
            model: record.model.as_deref().unwrap_or(""),
            kind: record.kind.as_deref().unwrap_or(""),
            size: size(record.request_bytes),
        }
    }
}

/// What a question over a week needs, so that it does not read each call.
fn sum_up(transaction: &Connection, batch: &[Arc<Record>]) -> rusqlite::Result<()> {
    let mut sums: HashMap<Key<'_>, [u64; 8]> = HashMap::new();
    for record in batch {
        let record = &**record;
        let key = Key::of(record);
        let complete = record.outcome == "complete";
        let of = [
            1,
            u64::from(complete && (record.attempts > 1 || record.waited > 0)),
            u64::from(record.outcome == "dropped"),
            record.attempts.into(),
            record.input_tokens.unwrap_or(0),
            record.output_tokens.unwrap_or(0).saturating_add(record.thought_tokens.unwrap_or(0)),
            record.rate_limited.into(),
            record.internal.into(),
        ];
        for (sum, of) in sums.entry(key).or_default().iter_mut().zip(of) {
            *sum = sum.saturating_add(of);
        }
    }
    let mut add = transaction.prepare_cached(
        "INSERT INTO minutes VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET calls = calls + excluded.calls,
         recovered = recovered + excluded.recovered, dropped = dropped + excluded.dropped, attempts = attempts + excluded.attempts,
         input_tokens = input_tokens + excluded.input_tokens, output_tokens = output_tokens + excluded.output_tokens,
         rate_limited = rate_limited + excluded.rate_limited, internal = internal + excluded.internal",
    )?;
    for (Key { minute, client, model, kind, size }, sums) in sums {
        let [calls, recovered, dropped, attempts, input, output, limited, internal] =
            sums.map(|sum| signed(Some(sum)));
        add.execute(params![
            minute, client, model, kind, size, calls, recovered, dropped, attempts, input, output, limited,
            internal
        ])?;
    }
    Ok(())
}

/// The place among the sizes that the page shows.
fn size(bytes: Option<u64>) -> i64 {
    match bytes {
        None => 5,
        Some(..1000) => 0,
        Some(..10_000) => 1,
        Some(..100_000) => 2,
        Some(..1_000_000) => 3,
        Some(_) => 4,
    }
}

/// SQLite's integers are signed.
fn signed(number: Option<u64>) -> Option<i64> {
    number.map(|number| i64::try_from(number).unwrap_or(i64::MAX))
}

/// Makes the file for its owner only; SQLite gives the files beside it the same rights.
fn private(file: &std::path::Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file).map(drop)
}

/// Whether the same batch may be taken later: the disk is full or slow, or somebody else has locked the file.
pub(super) fn may_pass(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory
        )
    )
}
