//! The fleet's state in Redis (6 or later) or Valkey.

mod fault;
mod link;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{
    AsyncConnectionConfig, Cmd, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind,
    Value,
};
use tokio::sync::mpsc;

use self::link::{Link, Source};
use super::message::{Close, Micros, Notice, Reply, StoreKey, Take};
use super::store::{Notices, Store, StoreError, StoreFault, StoreFuture};
use crate::error::ConfigError;

/// What the names of all keys begin with: the protocol and its version.
const PREFIX: &str = "tg:1:";
const CHANNEL: &str = "tg:1:ev";
const TAKE: &str = concat!(include_str!("state.lua"), include_str!("take.lua"));
const CLOSE: &str = concat!(include_str!("state.lua"), include_str!("close.lua"));

/// Keeps a fleet's quota in Redis (6 or later) or Valkey: a single server, one behind Sentinel, or a cluster.
///
/// Each key is one hash of one slot, `tg:1:{digest}`, and each message one script, so that a server is asked once and answers
/// whole. No module and no administrator's right is needed. With an ACL, this is enough:
///
/// ```text
/// +evalsha +eval +hello +info +time +hmget +hlen +hset +hdel +pexpire +publish +subscribe ~tg:1:* &tg:1:*
/// ```
///
/// State that nobody asks for is forgotten after a day. A server that evicts keys (`maxmemory-policy allkeys-*`) may evict
/// these: then the fleet begins anew, as after a flush. For failover set `min-replicas-max-lag` to at most
/// [`split`](Self::split_brain).
///
/// `rediss://` is TLS by rustls with the system's certificates; the program chooses the provider of cryptography, with a
/// feature of rustls or `CryptoProvider::install_default`.
///
/// Clones share the connection. The password is never printed.
///
/// ```no_run
/// use tower_gemini::fleet::RedisStore;
///
/// # fn main() -> Result<(), tower_gemini::ConfigError> {
/// let store = RedisStore::new("redis://127.0.0.1:6379")?;
/// # let _ = store; Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    link: Arc<Link>,
    place: String,
    timeout: Duration,
    split: Duration,
    take: Arc<Script>,
    close: Arc<Script>,
}

struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    fn new(text: &'static str) -> Arc<Self> {
        Arc::new(Self { text, hash: ::redis::Script::new(text).get_hash().to_owned() })
    }

    /// By its hash, or whole.
    fn command(&self, whole: bool, digest: &str, args: &[String]) -> Cmd {
        let mut command = Cmd::new();
        if whole {
            command.arg("EVAL").arg(self.text);
        } else {
            command.arg("EVALSHA").arg(&self.hash);
        }
        command.arg(1).arg(format!("{PREFIX}{{{digest}}}")).arg(args);
        command
    }
}

impl RedisStore {
    /// A server at `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS. Connects when it is first asked.
    ///
    /// # Errors
    ///
    /// When `url` is none of that form.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        Ok(Self::of(Source::Server(info(url)?)))
    }

    /// The master called `service`, which is asked of these Sentinels at each connection. `url` says how to talk to the
    /// master: its user, password, database, and TLS; its host is not used.
    ///
    /// # Errors
    ///
    /// When there is no Sentinel, or an URL is none.
    pub fn sentinel<'a>(
        sentinels: impl IntoIterator<Item = &'a str>,
        service: &str,
        url: &str,
    ) -> Result<Self, ConfigError> {
        let sentinels = sentinels.into_iter().map(info).collect::<Result<Vec<_>, _>>()?;
        if sentinels.is_empty() {
            return Err(ConfigError::new("sentinels", "must be at least one"));
        }
        Ok(Self::of(Source::Sentinel(sentinels, service.to_owned(), info(url)?)))
    }

    /// The cluster that these nodes belong to.
    ///
    /// # Errors
    ///
    /// When there is no node, or an URL is none.
    pub fn cluster<'a>(nodes: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        let nodes = nodes.into_iter().map(info).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(ConfigError::new("nodes", "must be at least one"));
        }
        Ok(Self::of(Source::Cluster(nodes)))
    }

    fn of(source: Source) -> Self {
        let place = |info: &ConnectionInfo| info.addr().to_string();
        let place = match &source {
            Source::Server(info) => place(info),
            Source::Sentinel(sentinels, service, _) => {
                format!("{service} of Sentinel {}", place(&sentinels[0]))
            }
            Source::Cluster(nodes) => format!("cluster of {}", place(&nodes[0])),
        };
        let (timeout, split) = (Duration::from_millis(250), Duration::from_secs(5));
        Self {
            link: Link::new(source),
            place,
            timeout,
            split,
            take: Script::new(TAKE),
            close: Script::new(CLOSE),
        }
    }

    /// How long an answer may take, from 10 ms to 10 s. Default 250 ms. Members keep to what they hold after that, and ask
    /// again.
    ///
    /// # Errors
    ///
    /// When it is out of its range.
    pub fn answer_within(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        if !(Duration::from_millis(10)..=Duration::from_secs(10)).contains(&timeout) {
            return Err(ConfigError::new("answer_within", "must be from 10 ms to 10 s"));
        }
        self.timeout = timeout;
        Ok(self)
    }

    /// How long an old master may go on answering after a new one was promoted, up to a minute. Default 5 s. Zero is right
    /// where there is no replica: a state that nobody remembers then begins to grant 5 s sooner.
    ///
    /// # Errors
    ///
    /// When it is out of its range.
    pub fn split_brain(mut self, split: Duration) -> Result<Self, ConfigError> {
        if split > Duration::from_secs(60) {
            return Err(ConfigError::new("split_brain", "must be at most 60 s"));
        }
        self.split = split;
        Ok(self)
    }

    /// Sends commands by hash, and those whose script the server does not know once more whole.
    async fn run(&self, script: &Script, all: &[(String, Vec<String>)]) -> Result<Vec<String>, StoreError> {
        let mut connection = self.link.get().await?;
        let command = |whole: bool, at: usize| script.command(whole, &all[at].0, &all[at].1);
        let mut commands: Vec<Cmd> = (0..all.len()).map(|at| command(false, at)).collect();
        let mut answers = vec![None; all.len()];
        for _ in 0..2 {
            let missing: Vec<usize> = (0..all.len()).filter(|at| answers[*at].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            self.link.asked();
            let got = connection.commands(&commands).await.map_err(|error| self.failed(&error))?;
            self.link.answered();
            commands.clear();
            for (at, answer) in missing.into_iter().zip(got) {
                match answer {
                    Ok(Value::BulkString(text)) => answers[at] = String::from_utf8(text).ok(),
                    Ok(Value::SimpleString(text)) => answers[at] = Some(text),
                    Ok(Value::Okay) => answers[at] = Some("OK".to_owned()),
                    Ok(_) => {
                        return Err(StoreError::new(StoreFault::Unexpected, "an answer of another kind"));
                    }
                    Err(error) if error.code() == Some("NOSCRIPT") => commands.push(command(true, at)),
                    Err(error) => return Err(self.failed(&error)),
                }
            }
        }
        let none =
            || StoreError::new(StoreFault::Unexpected, "the script is forgotten as soon as it is sent");
        answers.into_iter().map(|answer| answer.ok_or_else(none)).collect()
    }

    fn failed(&self, error: &::redis::RedisError) -> StoreError {
        let error = fault::of(error, &self.link.source().secrets());
        if error.fault() != StoreFault::Foreign && error.fault() != StoreFault::Newer {
            // Another one may lead to the new master, or know the password.
            self.link.drop_connection();
        }
        error
    }

    /// The same with the server's clock and run given, for tests that compare it with the reference.
    #[cfg(test)]
    pub(super) async fn take_at(&self, now: Micros, run: &str, take: &Take) -> Result<Reply, StoreError> {
        let args = wire::take(CHANNEL, &now.to_string(), run, take);
        let text = self.run(&self.take, &[(take.key.digest.clone(), args)]).await?;
        Ok(wire::reply(&text[0]).expect("an answer"))
    }

    #[cfg(test)]
    pub(super) async fn close_at(
        &self,
        now: Micros,
        digest: &str,
        window: Micros,
        close: Close,
    ) -> Result<(), StoreError> {
        let args = wire::close(CHANNEL, &now.to_string(), digest, window, close);
        self.run(&self.close, &[(digest.to_owned(), args)]).await.map(drop)
    }
}

fn info(url: &str) -> Result<ConnectionInfo, ConfigError> {
    let wrong = ConfigError::new("url", "must be redis://[user:password@]host[:port][/db], or rediss://");
    let known =
        ["redis://", "rediss://", "valkey://", "valkeys://"].iter().any(|scheme| url.starts_with(scheme));
    if !known {
        return Err(wrong);
    }
    url.into_connection_info().map_err(|_| wrong)
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Store for RedisStore {
    fn take<'a>(&'a self, takes: &'a [Take]) -> StoreFuture<'a, Result<Vec<Reply>, StoreError>> {
        Box::pin(async move {
            let all: Vec<_> = takes
                .iter()
                .map(|take| (take.key.digest.clone(), wire::take(CHANNEL, "", "", take)))
                .collect();
            let texts = self.run(&self.take, &all).await?;
            let answers = texts.iter().zip(takes).map(|(text, take)| {
                // One of another call shows that answers were lost on the way: all later ones would be one off.
                wire::reply(text).filter(|reply| reply.call == take.call).ok_or_else(|| {
                    self.link.drop_connection();
                    StoreError::new(StoreFault::Unexpected, "an answer to another question")
                })
            });
            answers.collect()
        })
    }

    fn close<'a>(
        &'a self,
        key: &'a StoreKey,
        close: Close,
        window: Micros,
    ) -> StoreFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let args = wire::close(CHANNEL, "", &key.digest, window, close);
            self.run(&self.close, &[(key.digest.clone(), args)]).await.map(drop)
        })
    }

    fn subscribe(&self) -> Option<Box<dyn Notices>> {
        let (sender, receiver) = mpsc::channel(1024);
        drop(tokio::spawn(listen(self.link.source().clone(), sender)));
        Some(Box::new(Heard(receiver)))
    }

    fn pushes(&self) -> bool {
        true
    }

    fn split(&self) -> Option<Duration> {
        Some(self.split)
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}

struct Heard(mpsc::Receiver<Option<Notice>>);

impl Notices for Heard {
    fn next(&mut self) -> StoreFuture<'_, Option<Notice>> {
        Box::pin(async move {
            match self.0.recv().await {
                Some(notice) => notice,
                None => std::future::pending().await,
            }
        })
    }
}

/// Hands on what is published, over a connection of its own, until nobody listens any more. After each new connection says
/// that something may have been missed.
async fn listen(source: Source, sender: mpsc::Sender<Option<Notice>>) {
    let mut pause = Duration::from_millis(50);
    let mut first = true;
    while !sender.is_closed() {
        let (pushed, mut pushes) = mpsc::unbounded_channel::<PushInfo>();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(Duration::from_secs(5)))
            .set_push_sender(pushed);
        let source = source.clone().with_pushes();
        let connected = async {
            let mut connection = source.one(config).await.ok()?;
            connection.subscribe(CHANNEL).await.ok()?;
            Some(connection)
        };
        let connected = tokio::select! {
            connected = connected => connected,
            () = sender.closed() => return,
        };
        if let Some(connection) = connected {
            pause = Duration::from_millis(50);
            if !std::mem::take(&mut first) && sender.send(None).await.is_err() {
                return;
            }
            hand_on(&mut pushes, &sender).await;
            drop(connection);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = sender.closed() => return,
        }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

async fn hand_on(pushes: &mut mpsc::UnboundedReceiver<PushInfo>, sender: &mpsc::Sender<Option<Notice>>) {
    loop {
        let push = tokio::select! {
            push = pushes.recv() => push,
            () = sender.closed() => return,
        };
        let Some(push) = push else { return };
        match push.kind {
            PushKind::Disconnection => return,
            PushKind::Message => {
                let Some(Value::BulkString(text)) = push.data.get(1) else { continue };
                let Some(notice) = std::str::from_utf8(text).ok().and_then(wire::notice) else { continue };
                if sender.send(Some(notice)).await.is_err() {
                    return;
                }
            }
            _ => {}
        }
    }
}

impl Source {
    /// The same with the protocol in which the server may speak first.
    fn with_pushes(self) -> Self {
        let three = |info: ConnectionInfo| {
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            info.set_redis_settings(settings)
        };
        match self {
            Self::Server(info) => Self::Server(three(info)),
            Self::Sentinel(sentinels, service, master) => Self::Sentinel(sentinels, service, three(master)),
            Self::Cluster(nodes) => Self::Cluster(nodes.into_iter().map(three).collect()),
        }
    }
}
