//! What the page asks of the file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OpenFlags, Row, params_from_iter};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::Record;

/// A question that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Names of a table.
const NAMES: usize = 50;

/// How far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Over {
    #[default]
    Hour,
    Day,
    Week,
}

impl Over {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "hour" => Some(Self::Hour),
            "day" => Some(Self::Day),
            "week" => Some(Self::Week),
            _ => None,
        }
    }

    pub const fn duration(self) -> Duration {
        match self {
            Self::Hour => Duration::from_secs(3600),
            Self::Day => Duration::from_secs(86_400),
            Self::Week => Duration::from_secs(7 * 86_400),
        }
    }
}

/// Which calls are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Shown {
    /// Those that failed.
    #[default]
    Failed,
    /// Those that failed, and those that waited or needed more than one attempt.
    Troubled,
    All,
}

impl Shown {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "failed" => Some(Self::Failed),
            "troubled" => Some(Self::Troubled),
            "all" => Some(Self::All),
            _ => None,
        }
    }
}

/// Which calls are asked about. `None` is any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Milliseconds since 1970; calls that ended earlier are left out.
    pub since: i64,
    pub client: Option<String>,
    pub model: Option<String>,
    pub kind: Option<String>,
    pub shown: Shown,
}

impl Filter {
    /// Whether this one is asked about.
    pub fn is(&self, record: &Record) -> bool {
        let same = |asked: &Option<String>, of: &Option<String>| {
            asked.as_ref().is_none_or(|asked| asked == of.as_deref().unwrap_or(""))
        };
        let shown = match self.shown {
            Shown::Failed => record.kind.is_some(),
            Shown::Troubled => record.had_trouble(),
            Shown::All => true,
        };
        shown
            && record.time >= self.since
            && same(&self.client, &record.client)
            && same(&self.model, &record.model)
            && same(&self.kind, &record.kind)
    }

    /// The same as a condition, with its values. Empty names are those of calls that have none.
    fn sql(&self, shown: Shown) -> (String, Vec<Sql>) {
        let mut text = "time >= ?".to_owned();
        let mut values = vec![Sql::Integer(self.since)];
        for (column, asked) in [("client", &self.client), ("model", &self.model), ("kind", &self.kind)] {
            if let Some(asked) = asked {
                text.push_str(&format!(" AND coalesce({column}, '') = ?"));
                values.push(Sql::Text(asked.clone()));
            }
        }
        text.push_str(match shown {
            Shown::Failed => " AND kind IS NOT NULL",
            Shown::Troubled => " AND (kind IS NOT NULL OR attempts > 1 OR waited > 0)",
            Shown::All => "",
        });
        (text, values)
    }
}

/// What a time brought, as the page shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub calls: u64,
    pub failed: u64,
    /// Answered after a failure.
    pub recovered: u64,
    /// Left by their clients.
    pub dropped: u64,
    pub attempts: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub kinds: Vec<Share>,
    pub models: Vec<Share>,
    pub clients: Vec<Share>,
    /// For each hour of the day (UTC): calls, and attempts that were answered with a 429.
    pub hours: Vec<[u64; 2]>,
    /// By the size of the request's body: calls, and attempts that were answered with a 500.
    pub sizes: Vec<Size>,
    /// Of each kind, the client with most of its failures.
    pub most: Vec<Most>,
}

/// One name and how many calls it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Empty where the calls had none.
    pub name: String,
    pub calls: u64,
    pub failed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    pub name: &'static str,
    pub calls: u64,
    pub internal: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Most {
    pub kind: String,
    pub client: String,
    pub failed: u64,
    /// Of all clients.
    pub of: u64,
}

const SIZES: [&str; 6] =
    ["under 1 kB", "1 to 10 kB", "10 to 100 kB", "100 kB to 1 MB", "over 1 MB", "not said"];

/// Reads the file, each time through a connection of its own, so that the writer never waits. Blocking: not for async code.
#[derive(Clone, Debug)]
pub struct Reader {
    file: Arc<Path>,
}

type Answer<T> = Result<T, rusqlite::Error>;

impl Reader {
    pub(super) const fn new(file: Arc<Path>) -> Self {
        Self { file }
    }

    fn open(&self) -> Answer<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.file, flags)?;
        connection.busy_timeout(Duration::from_secs(2))?;
        let until = Instant::now() + PATIENCE;
        connection.progress_handler(10_000, Some(move || Instant::now() > until))?;
        Ok(connection)
    }

    /// Everything about the calls of a filter; its `shown` does not count.
    pub fn summary(&self, filter: &Filter) -> Answer<Summary> {
        let mut connection = self.open()?;
        // One snapshot for all, so that the figures fit together.
        let all = connection.transaction()?;
        let (of, values) = filter.sql(Shown::All);
        let numbers = |row: &Row<'_>| (0..7).map(|i| Ok(row.get::<_, i64>(i)?.unsigned_abs())).collect();
        let totals: Vec<u64> = all.query_row(
            &format!(
                "SELECT count(*), count(kind), coalesce(sum(outcome = 'complete' AND (attempts > 1 OR waited > 0)), 0),
                 coalesce(sum(outcome = 'dropped'), 0), coalesce(sum(attempts), 0), coalesce(sum(input_tokens), 0),
                 coalesce(sum(coalesce(output_tokens, 0) + coalesce(thought_tokens, 0)), 0) FROM calls WHERE {of}"
            ),
            params_from_iter(&values),
            numbers,
        )?;
        let [calls, failed, recovered, dropped, attempts, input_tokens, output_tokens] = totals[..] else {
            return Err(rusqlite::Error::InvalidQuery);
        };
        let shares = |column: &str, and: &str| -> Answer<Vec<Share>> {
            let text = format!(
                "SELECT coalesce({column}, ''), count(*), count(kind) FROM calls WHERE {of} {and}
                 GROUP BY 1 ORDER BY 3 DESC, 2 DESC, 1 LIMIT {NAMES}"
            );
            let mut statement = all.prepare(&text)?;
            let rows = statement.query_map(params_from_iter(&values), |row| {
                Ok(Share { name: row.get(0)?, calls: number(row, 1)?, failed: number(row, 2)? })
            })?;
            rows.collect()
        };
        let mut hours = vec![[0; 2]; 24];
        let text = format!(
            "SELECT time / 3600000 % 24, count(*), sum(rate_limited) FROM calls WHERE {of} GROUP BY 1"
        );
        let mut statement = all.prepare(&text)?;
        let mut rows = statement.query(params_from_iter(&values))?;
        while let Some(row) = rows.next()? {
            if let Some(hour) = usize::try_from(number(row, 0)?).ok().and_then(|hour| hours.get_mut(hour)) {
                *hour = [number(row, 1)?, number(row, 2)?];
            }
        }
        let mut sizes = SIZES.map(|name| Size { name, calls: 0, internal: 0 }).to_vec();
        let text = format!(
            "SELECT CASE WHEN request_bytes IS NULL THEN 5 WHEN request_bytes < 1000 THEN 0 WHEN request_bytes < 10000 THEN 1
             WHEN request_bytes < 100000 THEN 2 WHEN request_bytes < 1000000 THEN 3 ELSE 4 END, count(*), sum(internal)
             FROM calls WHERE {of} GROUP BY 1"
        );
        let mut statement = all.prepare(&text)?;
        let mut rows = statement.query(params_from_iter(&values))?;
        while let Some(row) = rows.next()? {
            if let Some(size) = usize::try_from(number(row, 0)?).ok().and_then(|size| sizes.get_mut(size)) {
                (size.calls, size.internal) = (number(row, 1)?, number(row, 2)?);
            }
        }
        let text = format!(
            "SELECT kind, client, max(n), sum(n) FROM (SELECT kind, coalesce(client, '') AS client, count(*) AS n FROM calls
             WHERE {of} AND kind IS NOT NULL GROUP BY 1, 2) GROUP BY 1 ORDER BY 4 DESC, 1"
        );
        let mut statement = all.prepare(&text)?;
        let rows = statement.query_map(params_from_iter(&values), |row| {
            Ok(Most { kind: row.get(0)?, client: row.get(1)?, failed: number(row, 2)?, of: number(row, 3)? })
        })?;
        let most = rows.collect::<Answer<_>>()?;
        Ok(Summary {
            calls,
            failed,
            recovered,
            dropped,
            attempts,
            input_tokens,
            output_tokens,
            kinds: shares("kind", "AND kind IS NOT NULL")?,
            models: shares("model", "")?,
            clients: shares("client", "")?,
            hours,
            sizes,
            most,
        })
    }

    /// At most `most` calls, the newest first; with `before`, those whose row is older than that one.
    pub fn calls(&self, filter: &Filter, before: Option<i64>, most: usize) -> Answer<Vec<Record>> {
        let connection = self.open()?;
        let (mut of, mut values) = filter.sql(filter.shown);
        if let Some(before) = before {
            of.push_str(" AND id < ?");
            values.push(Sql::Integer(before));
        }
        let text = format!(
            "SELECT id, time, request_id, client, project, model, answered, tier, method, stream, status, outcome, kind, message,
             gave_up, attempts, waited, first_byte, latency, request_bytes, input_tokens, cached_tokens, output_tokens,
             thought_tokens, rate_limited, internal, steps FROM calls WHERE {of} ORDER BY id DESC LIMIT {most}"
        );
        let mut statement = connection.prepare(&text)?;
        let rows = statement.query_map(params_from_iter(&values), record)?;
        rows.collect()
    }
}

fn number(row: &Row<'_>, column: usize) -> Answer<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

fn record(row: &Row<'_>) -> Answer<Record> {
    let maybe = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(i64::unsigned_abs));
    let steps: Option<String> = row.get(26)?;
    let steps = steps.and_then(|steps| serde_json::from_str(&steps).ok());
    Ok(Record {
        id: row.get(0)?,
        time: row.get(1)?,
        request_id: row.get(2)?,
        client: row.get(3)?,
        project: row.get(4)?,
        model: row.get(5)?,
        answered: row.get(6)?,
        tier: row.get(7)?,
        method: row.get(8)?,
        stream: row.get(9)?,
        status: row.get(10)?,
        outcome: row.get(11)?,
        kind: row.get(12)?,
        message: row.get(13)?,
        gave_up: row.get(14)?,
        attempts: row.get(15)?,
        waited: number(row, 16)?,
        first_byte: maybe(17)?,
        latency: number(row, 18)?,
        request_bytes: maybe(19)?,
        input_tokens: maybe(20)?,
        cached_tokens: maybe(21)?,
        output_tokens: maybe(22)?,
        thought_tokens: maybe(23)?,
        rate_limited: row.get(24)?,
        internal: row.get(25)?,
        steps: steps.unwrap_or_else(|| Value::Array(Vec::new())),
    })
}
