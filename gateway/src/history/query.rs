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

    /// The same as a condition on the sums, with its values.
    fn minutes(&self) -> (String, Vec<Sql>) {
        let mut text = "minute >= ?".to_owned();
        let mut values = vec![Sql::Integer(self.since.div_euclid(60_000))];
        for (column, asked) in [("client", &self.client), ("model", &self.model), ("kind", &self.kind)] {
            if let Some(asked) = asked {
                text.push_str(&format!(" AND {column} = ?"));
                values.push(Sql::Text(asked.clone()));
            }
        }
        (text, values)
    }

    /// The same as a condition, with its values. Empty names are those of calls that have none.
    fn calls(&self) -> (String, Vec<Sql>) {
        let mut text = "time >= ?".to_owned();
        let mut values = vec![Sql::Integer(self.since)];
        for (column, asked) in [("client", &self.client), ("model", &self.model), ("kind", &self.kind)] {
            if let Some(asked) = asked {
                text.push_str(&format!(" AND coalesce({column}, '') = ?"));
                values.push(Sql::Text(asked.clone()));
            }
        }
        // The condition of the index must stand here as it stands there.
        text.push_str(match self.shown {
            Shown::Failed => " AND (kind IS NOT NULL OR attempts > 1 OR waited > 0) AND kind IS NOT NULL",
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

    /// Everything about the calls of a filter, from the whole minute of its beginning on; its `shown` does not count.
    pub fn summary(&self, filter: &Filter) -> Answer<Summary> {
        let mut connection = self.open()?;
        // One snapshot for all, so that the figures fit together.
        let all = connection.transaction()?;
        let (of, values) = filter.minutes();
        let numbers = |row: &Row<'_>| (0..7).map(|i| number(row, i)).collect();
        let totals: Vec<u64> = all.query_row(
            &format!(
                "SELECT coalesce(sum(calls), 0), coalesce(sum(iif(kind <> '', calls, 0)), 0), coalesce(sum(recovered), 0),
                 coalesce(sum(dropped), 0), coalesce(sum(attempts), 0), coalesce(sum(input_tokens), 0),
                 coalesce(sum(output_tokens), 0) FROM minutes WHERE {of}"
            ),
            params_from_iter(&values),
            numbers,
        )?;
        let [calls, failed, recovered, dropped, attempts, input_tokens, output_tokens] = totals[..] else {
            return Err(rusqlite::Error::InvalidQuery);
        };
        let shares = |column: &str, and: &str| -> Answer<Vec<Share>> {
            let text = format!(
                "SELECT {column}, sum(calls), sum(iif(kind <> '', calls, 0)) FROM minutes WHERE {of} {and}
                 GROUP BY 1 ORDER BY 3 DESC, 2 DESC, 1 LIMIT {NAMES}"
            );
            let mut statement = all.prepare(&text)?;
            let rows = statement.query_map(params_from_iter(&values), |row| {
                Ok(Share { name: row.get(0)?, calls: number(row, 1)?, failed: number(row, 2)? })
            })?;
            rows.collect()
        };
        // For each place: calls, and the sum of a column.
        let places = |place: &str, column: &str, many: usize| -> Answer<Vec<[u64; 2]>> {
            let mut found = vec![[0; 2]; many];
            let text =
                format!("SELECT {place}, sum(calls), sum({column}) FROM minutes WHERE {of} GROUP BY 1");
            let mut statement = all.prepare(&text)?;
            let mut rows = statement.query(params_from_iter(&values))?;
            while let Some(row) = rows.next()? {
                let at = usize::try_from(number(row, 0)?).ok().and_then(|at| found.get_mut(at));
                if let Some(at) = at {
                    *at = [number(row, 1)?, number(row, 2)?];
                }
            }
            Ok(found)
        };
        let sizes = places("size", "internal", SIZES.len())?;
        let sizes = SIZES.iter().zip(sizes).map(|(name, [calls, internal])| Size { name, calls, internal });
        let text = format!(
            "SELECT kind, client, max(n), sum(n) FROM (SELECT kind, client, sum(calls) AS n FROM minutes
             WHERE {of} AND kind <> '' GROUP BY 1, 2) GROUP BY 1 ORDER BY 4 DESC, 1"
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
            kinds: shares("kind", "AND kind <> ''")?,
            models: shares("model", "")?,
            clients: shares("client", "")?,
            hours: places("minute / 60 % 24", "rate_limited", 24)?,
            sizes: sizes.collect(),
            most,
        })
    }

    /// At most `most` calls, the newest first; with `before`, the id of a call, those that ended before it.
    pub fn calls(&self, filter: &Filter, before: Option<i64>, most: usize) -> Answer<Vec<Record>> {
        let connection = self.open()?;
        let (mut of, mut values) = filter.calls();
        if let Some(before) = before {
            of.push_str(" AND (time, id) < (SELECT time, id FROM calls WHERE id = ?)");
            values.push(Sql::Integer(before));
        }
        let text = format!(
            "SELECT id, time, request_id, client, project, model, answered, tier, method, stream, status, outcome, kind, message,
             gave_up, attempts, waited, first_byte, latency, request_bytes, input_tokens, cached_tokens, output_tokens,
             thought_tokens, rate_limited, internal, steps FROM calls WHERE {of} ORDER BY time DESC, id DESC LIMIT {most}"
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
