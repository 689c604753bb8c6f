//! Who may use the gateway: clients with tokens of their own, from a file.
//!
//! `file.rs` reads the file, `limits.rs` counts. A client's token is compared by its hash with each in the file, in a time that does not
//! depend on which one it is, and is never sent to the upstream: the gateway's own key takes its place.
//!
//! A client's list of models is held against the model of the path and against every `model` of the body, in the parts of a batch, too. A body
//! that cannot be looked into (packed, too large to be kept, no JSON, a batch in a file) is refused to such a client.

pub mod file;
pub mod limits;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tokio::time::Instant;
use tower_gemini::event::{Event, Observer};
use tower_gemini::verdict::Usage;
use tower_gemini::{KeyLabel, Target};

use self::file::Price;
use self::limits::{Limits, Over, Used};
use crate::gather::Gather;
use crate::history::Trace;
use crate::kept::Kept;
use crate::proxy::Turn;

const API_KEY: &str = "x-goog-api-key";

/// The clients, and what each has used. A reload keeps the latter, by name.
#[derive(Debug)]
pub struct Clients {
    file: String,
    table: RwLock<Arc<Table>>,
    unknown: AtomicU64,
    started: Instant,
}

/// What a file says.
#[derive(Debug)]
pub struct Table {
    /// Each as a key and as a bearer token.
    keys: Vec<(HeaderValue, HeaderValue)>,
    clients: Vec<([u8; 32], Arc<Client>)>,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    pub name: String,
    pub label: KeyLabel,
    models: Option<Vec<String>>,
    limits: Limits,
    key: usize,
    prices: Arc<[Price]>,
    started: Instant,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    used: Mutex<Used>,
    admitted: AtomicU64,
    refused: AtomicU64,
}

/// A client's call, until it is dropped. Clones are the same call.
#[derive(Clone, Debug)]
pub struct Admitted(Arc<Place>);

#[derive(Debug)]
struct Place {
    client: Arc<Client>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.client.counts.used.lock().unwrap_or_else(PoisonError::into_inner).release();
    }
}

impl Admitted {
    pub fn client(&self) -> &Client {
        &self.0.client
    }
}

/// The hash of a token, as files have it.
pub fn hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Clients {
    /// # Errors
    ///
    /// A sentence with file, line and rule.
    pub fn open(file: &str) -> Result<Self, String> {
        let started = Instant::now();
        let table = RwLock::new(Arc::new(Table::read(file, None, started)?));
        Ok(Self { file: file.to_owned(), table, unknown: AtomicU64::new(0), started })
    }

    /// Reads the file again. How many clients it has.
    ///
    /// # Errors
    ///
    /// A sentence with file, line and rule; everything stays as it was.
    pub fn reload(&self) -> Result<usize, String> {
        self.again().map(|table| self.put(table))
    }

    /// Reads the file, to be [put](Self::put) in force.
    ///
    /// # Errors
    ///
    /// As [`reload`](Self::reload).
    pub fn again(&self) -> Result<Table, String> {
        Table::read(&self.file, Some(&*self.table()), self.started)
    }

    /// How many clients it has.
    pub fn put(&self, table: Table) -> usize {
        let clients = table.clients.len();
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        clients
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Finds the client of a request, counts it and puts the upstream's key in the place of the token.
    ///
    /// # Errors
    ///
    /// The answer to one that may not be made.
    pub fn admit<B>(&self, request: &mut Request<B>) -> Result<Admitted, Box<Response<Bytes>>> {
        let table = self.table();
        let (token, as_bearer) = token(request.headers(), request.uri().query()).unwrap_or_default();
        let Some(client) = table.find(&token) else {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            let message = "The token is none of a client of this gateway.";
            return Err(refusal(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", message, &[], None));
        };
        let counts = &client.counts;
        let result = {
            let mut used = counts.used.lock().unwrap_or_else(PoisonError::into_inner);
            // Read under the lock, so that it does not go back.
            let (now, wall) = clocks(self.started);
            used.admit(&client.limits, now, wall)
        };
        if let Err(over) = result {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            return Err(over_limit(&client.name, over));
        }
        counts.admitted.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted(Arc::new(Place { client: Arc::clone(client) }));
        let Some((key, bearer)) = table.keys.get(client.key) else {
            return Err(refusal(
                StatusCode::UNAUTHORIZED,
                "UNAUTHENTICATED",
                "The client has no key.",
                &[],
                None,
            ));
        };
        let headers = request.headers_mut();
        headers.remove(API_KEY);
        headers.remove(AUTHORIZATION);
        // Who pays is not the client's to say.
        headers.remove("x-goog-user-project");
        match as_bearer {
            true => headers.insert(AUTHORIZATION, bearer.clone()),
            false => headers.insert(API_KEY, key.clone()),
        };
        if let Some(uri) = without_keys(request.uri()) {
            *request.uri_mut() = uri;
        }
        Ok(admitted)
    }

    /// For `/status`.
    pub fn status(&self) -> Value {
        let table = self.table();
        let clients = table.clients.iter().map(|(_, client)| {
            let used = client.counts.used.lock().unwrap_or_else(PoisonError::into_inner);
            json!({
                "name": client.name,
                "in_flight": used.open(),
                "requests_today": used.today(),
                "admitted": client.counts.admitted.load(Ordering::Relaxed),
                "refused": client.counts.refused.load(Ordering::Relaxed),
                "requests_per_minute": client.limits.requests_per_minute,
                "requests_per_day": client.limits.requests_per_day,
                "concurrency": client.limits.concurrency,
                "tokens_today": used.tokens_today(),
                "tokens_per_minute": client.limits.tokens_per_minute,
                "tokens_per_day": client.limits.tokens_per_day,
                "money_today": used.money_today() as f64 / 1e9,
                "money_per_day": client.limits.money_per_day.map(|money| money as f64 / 1e9),
            })
        });
        let clients: Vec<Value> = clients.collect();
        json!({ "known": clients, "unknown_tokens": self.unknown.load(Ordering::Relaxed) })
    }
}

impl Table {
    fn read(file: &str, before: Option<&Self>, started: Instant) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(file).map_err(|error| format!("{file}: cannot be read: {error}"))?;
        let parsed = file::parse(file, &text, |name| std::env::var(name).ok())?;
        let bearer = |key: &HeaderValue| {
            let mut bearer = HeaderValue::try_from([b"Bearer ", key.as_bytes()].concat())
                .map_err(|_| format!("{file}: the upstream's key is no header value"))?;
            bearer.set_sensitive(true);
            Ok::<_, String>(bearer)
        };
        let known = |name: &str| {
            let of = before?.clients.iter().find(|(_, client)| client.name == name);
            of.map(|(_, client)| Arc::clone(&client.counts))
        };
        let prices: Arc<[Price]> = parsed.prices.into();
        let client = |entry: file::Entry| {
            let counts = known(&entry.name).unwrap_or_default();
            // Quotas are a project's; what else is kept is kept by client.
            let project = parsed.keys.get(entry.key).and_then(|(project, _)| project.as_deref());
            let label = match project {
                Some(project) => format!("{}@{project}", entry.name),
                None => entry.name.clone(),
            };
            let client = Client {
                label: KeyLabel::new(label),
                name: entry.name,
                models: entry.models,
                limits: entry.limits,
                key: entry.key,
                prices: Arc::clone(&prices),
                started,
                counts,
            };
            (entry.token_sha256, Arc::new(client))
        };
        let clients = parsed.clients.into_iter().map(client).collect();
        let keys = parsed.keys.iter().map(|(_, key)| Ok::<_, String>((key.clone(), bearer(key)?)));
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, clients })
    }

    /// Compares with each, whichever it is.
    fn find(&self, token: &str) -> Option<&Arc<Client>> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = u32::MAX;
        for (at, (other, _)) in (0_u32..).zip(&self.clients) {
            found = u32::conditional_select(&found, &at, hash.ct_eq(other));
        }
        self.clients.get(found as usize).map(|(_, client)| client)
    }
}

impl Client {
    /// A call has used these tokens of this model.
    fn spend(&self, model: Option<&str>, usage: &Usage) {
        let output = usage.output_tokens.saturating_add(usage.thought_tokens);
        let price = model.and_then(|model| self.price(model));
        let money = price.map_or(0, |price| cost(price, usage.input_tokens, usage.cached_tokens, output));
        let mut used = self.counts.used.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, wall) = clocks(self.started);
        used.spend(now, wall, usage.input_tokens.saturating_add(output), money);
    }

    fn price(&self, model: &str) -> Option<&Price> {
        self.prices.iter().find(|price| fits(&price.model, model))
    }

    /// Refuses a model that the client may not use. Where its models are listed, a POST that names none is refused, too, but for
    /// uploads and files: its body may name one where the gateway does not look.
    ///
    /// # Errors
    ///
    /// The answer.
    pub fn allows<B>(&self, request: &Request<B>, whole: Option<&Bytes>) -> Result<(), Box<Response<Bytes>>> {
        let path = request.uri().path();
        let files = path.starts_with("/upload/") || path == "/v1beta/files" || path == "/v1/files";
        if files || self.models.is_none() && self.limits.money_per_day.is_none() {
            return Ok(());
        }
        let target = Target::of(request);
        let named = target.model();
        let priced =
            self.limits.money_per_day.is_none() || named.is_some_and(|model| self.price(model).is_some());
        if request.method() == Method::POST && !priced {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            let what =
                named.map_or("its model is not known".to_owned(), |model| format!("{model} has no price"));
            let message =
                format!("The client {} may spend some money only, and {what} at this gateway.", self.name);
            return Err(refusal(StatusCode::FORBIDDEN, "PERMISSION_DENIED", &message, &[], None));
        }
        if self.models.is_none() {
            return Ok(());
        }
        let message = if let Some(model) = named.filter(|model| !self.may_use(model)) {
            format!("The client {} may not use the model {model}.", self.name)
        } else if request.method() != Method::POST {
            return Ok(());
        } else {
            // A body names what it likes: once more, in the parts of a batch, packed.
            let packed = request.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
            let inside = match whole.filter(|_| !packed) {
                Some(whole) if whole.is_empty() => Some(Vec::new()),
                Some(whole) => crate::model::all(whole),
                None => None,
            };
            match inside {
                None => format!(
                    "The client {} may use some models only, and the gateway cannot see which ones the body names.",
                    self.name
                ),
                Some(inside) => match inside.iter().find(|model| !self.may_use(model)) {
                    Some(model) => format!("The client {} may not use the model {model}.", self.name),
                    None if named.is_none() && inside.is_empty() => {
                        format!(
                            "The client {} may use some models only, and the request names none.",
                            self.name
                        )
                    }
                    None => return Ok(()),
                },
            }
        };
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        Err(refusal(StatusCode::FORBIDDEN, "PERMISSION_DENIED", &message, &[], None))
    }

    /// Whether the list of models has it.
    pub fn may_use(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.iter().any(|allowed| fits(allowed, model)))
    }
}

/// The token in the first of the three places that has one, and whether that is `Authorization`.
fn token(headers: &HeaderMap, query: Option<&str>) -> Option<(String, bool)> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(token) = header(API_KEY).filter(|token| !token.is_empty()) {
        return Some((token.to_owned(), false));
    }
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let of_query = pairs.find(|(name, value)| name == "key" && !value.is_empty());
    if let Some((_, token)) = of_query {
        return Some((token.into_owned(), false));
    }
    let (scheme, token) = header(AUTHORIZATION.as_str())?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| (token.to_owned(), true))
}

/// The same without what Google takes for a key or a token in a query. The other pairs stay byte for byte. `None` where there is none.
fn without_keys(uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    let secret = |pair: &&str| {
        let name = form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name.into_owned());
        matches!(name.as_deref(), Some("key" | "access_token" | "oauth_token"))
    };
    if !query.split('&').any(|pair| secret(&pair)) {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !secret(pair)).collect();
    let path = match kept.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{}", uri.path(), kept.join("&")),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether a pattern, a name or the beginning of one and `*`, is of this model.
fn fits(pattern: &str, model: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(stem) => model.starts_with(stem),
        None => model == pattern,
    }
}

/// In billionths of the prices' currency, rounded up.
fn cost(price: &Price, input: u64, cached: u64, output: u64) -> u64 {
    let fresh = input.saturating_sub(cached) as f64;
    let of = fresh * price.input + cached.min(input) as f64 * price.cached + output as f64 * price.output;
    // A price is of a million tokens: a token costs a millionth of it, and that is a thousand billionths.
    (of * 1000.0).ceil() as u64
}

/// The time after a fixed start, and that after 1970.
fn clocks(started: Instant) -> (Duration, Duration) {
    let now = Instant::now().saturating_duration_since(started);
    (now, Duration::try_from(Timestamp::now().as_duration()).unwrap_or_default())
}

/// Charges each call to its client when it is over.
#[derive(Debug)]
pub struct Spent;

impl Observer for Spent {
    fn on_event(&self, event: &Event<'_>) {
        let Event::Finished { call, .. } = event else { return };
        let Some(trace) = call.attached::<Trace>() else { return };
        let (Some(admitted), Some(usage)) = (&trace.admitted, call.usage()) else { return };
        let answered = trace.answered();
        admitted.client().spend(answered.as_deref().or(call.model()), &usage);
    }
}

fn over_limit(name: &str, over: Over) -> Box<Response<Bytes>> {
    let (limit, wait) = match over {
        Over::Minute { limit, wait } => (format!("requests_per_minute {limit}"), wait),
        Over::Day { limit, wait } => (format!("requests_per_day {limit} (UTC)"), wait),
        Over::Tokens { limit, wait } => (format!("tokens_per_minute {limit}"), wait),
        Over::TokensOfDay { limit, wait } => (format!("tokens_per_day {limit} (UTC)"), wait),
        Over::Money { limit, wait } => (format!("money_per_day {} (UTC)", limit as f64 / 1e9), wait),
        // When a call ends is not known.
        Over::Concurrency { limit } => (format!("concurrency {limit}"), Duration::from_secs(1)),
    };
    let message = format!("The client {name} is over its limit at this gateway: {limit}.");
    // In whole milliseconds, and never early.
    let millis = wait.as_nanos().div_ceil(1_000_000);
    let delay = format!("{}.{:03}s", millis / 1000, millis % 1000);
    let details = [json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay })];
    let after = millis.div_ceil(1000) as u64;
    refusal(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", &message, &details, Some(after))
}

fn refusal(
    status: StatusCode,
    code: &str,
    message: &str,
    details: &[Value],
    after: Option<u64>,
) -> Box<Response<Bytes>> {
    let mut error = json!({ "code": status.as_u16(), "message": message, "status": code });
    if !details.is_empty() {
        error["details"] = details.into();
    }
    let mut response = Response::new(Bytes::from(json!({ "error": error }).to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=UTF-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    if let Some(after) = after {
        response.headers_mut().insert(RETRY_AFTER, after.into());
    }
    Box::new(response)
}

/// An answer's body, with its call's places.
pub type Held<B> = Kept<Gather<B, <B as Body>::Error>, (Option<Admitted>, Option<Turn>)>;

/// Moves what the response's extensions hold of a call into its body.
pub fn held<B: Body<Data = Bytes>>(mut response: Response<B>) -> Response<Held<B>> {
    let of = response.extensions_mut();
    let both = (of.remove::<Admitted>(), of.remove::<Turn>());
    response.map(|body| Kept::new(Gather::new(body), Some(both)))
}

/// The project in the label of a client whose key is one of several.
pub fn project(label: &str) -> Option<&str> {
    label.rsplit_once('@').map(|(_, project)| project)
}
