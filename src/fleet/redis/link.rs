//! The connection: made in a task of its own, so that a caller who gives up does not give it up, and thrown away as soon
//! as it is of no use. redis-rs's own `ConnectionManager` stays on a master that became a replica, and on a dead peer
//! until TCP notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, Pipeline, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::fault;
use crate::fleet::store::{StoreError, StoreFault};
use crate::sync::{Mutex, lock};
use crate::time;

/// How long an attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection is made anew after this, and the name looked up again.
const MOST_AGE: Duration = Duration::from_secs(30 * 60);
/// So many answers in a row that did not come end a connection.
const UNANSWERED: u32 = 2;

/// Where the server is.
#[derive(Clone)]
pub(super) enum Source {
    Server(ConnectionInfo),
    /// Sentinels, the master's name, and how to talk to it.
    Sentinel(Vec<ConnectionInfo>, String, ConnectionInfo),
    Cluster(Vec<ConnectionInfo>),
}

#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Many(ClusterConnection),
}

pub(super) struct Link {
    source: Source,
    state: Mutex<State>,
    changed: Notify,
    /// Commands in a row that were given up. Relaxed: a number to compare.
    unanswered: AtomicU32,
}

enum State {
    Down,
    Connecting,
    Up(Connection, Instant),
    Failed(StoreError),
}

impl Link {
    pub(super) fn new(source: Source) -> Arc<Self> {
        let (changed, unanswered) = (Notify::new(), AtomicU32::new(0));
        Arc::new(Self { source, state: Mutex::new(State::Down), changed, unanswered })
    }

    /// A connection, which is made if there is none that is of use.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Connection, StoreError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(known) = self.look() {
                return known;
            }
            changed.await;
        }
    }

    fn look(self: &Arc<Self>) -> Option<Result<Connection, StoreError>> {
        let mut state = lock(&self.state);
        match &*state {
            State::Up(connection, since) => {
                let worn = time::now().saturating_duration_since(*since) > MOST_AGE;
                if !worn && self.unanswered.load(Ordering::Relaxed) < UNANSWERED {
                    return Some(Ok(connection.clone()));
                }
            }
            State::Connecting => return None,
            State::Failed(error) => {
                let error = error.clone();
                *state = State::Down;
                return Some(Err(error));
            }
            State::Down => {}
        }
        *state = State::Connecting;
        self.unanswered.store(0, Ordering::Relaxed);
        let link = Arc::clone(self);
        drop(tokio::spawn(async move { link.connect().await }));
        None
    }

    async fn connect(self: Arc<Self>) {
        let source = self.source.clone();
        // A panic (rustls without a provider of cryptography) must not leave the others waiting.
        let made = tokio::spawn(async move { tokio::time::timeout(CONNECT, source.connect()).await });
        let state = match made.await {
            Ok(Ok(Ok(connection))) => State::Up(connection, time::now()),
            Ok(Ok(Err(error))) => State::Failed(error),
            Ok(Err(_)) => State::Failed(StoreError::unreachable("no connection within 2 s")),
            Err(_) => State::Failed(StoreError::unreachable(
                "connecting failed; rediss:// needs a CryptoProvider of rustls to be installed",
            )),
        };
        *lock(&self.state) = state;
        self.changed.notify_waiters();
    }

    /// Throws the connection away.
    pub(super) fn drop_connection(&self) {
        let mut state = lock(&self.state);
        if matches!(*state, State::Up(..)) {
            *state = State::Down;
        }
    }

    /// Counts a command as unanswered until it is [answered](Self::answered).
    pub(super) fn asked(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }
}

impl Source {
    pub(super) async fn connect(&self) -> Result<Connection, StoreError> {
        if let Self::Cluster(nodes) = self {
            let client = ClusterClient::builder(nodes.clone())
                .connection_timeout(CONNECT)
                .retries(1)
                .build()
                .map_err(|error| fault::of(&error, &self.secrets()))?;
            let made = client.get_async_connection().await;
            return made.map(Connection::Many).map_err(|error| fault::of(&error, &self.secrets()));
        }
        // Our own timeout ends what takes too long; redis-rs's would not tell us.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(None);
        self.one(config).await.map(Connection::One)
    }

    /// A connection to one server: the only one, the master, or any of a cluster.
    pub(super) async fn one(
        &self,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, StoreError> {
        let infos = match self {
            Self::Server(info) => vec![info.clone()],
            Self::Sentinel(sentinels, service, master) => {
                vec![self.master(sentinels, service, master).await?]
            }
            // Each hears what is published at any other.
            Self::Cluster(nodes) => nodes.clone(),
        };
        let error = |error: redis::RedisError| fault::of(&error, &self.secrets());
        let mut last = StoreError::unreachable("no node was named");
        for info in infos {
            let client = Client::open(info).map_err(error)?;
            match client.get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => return Ok(connection),
                Err(failed) => last = error(failed),
            }
        }
        Err(last)
    }

    async fn master(
        &self,
        sentinels: &[ConnectionInfo],
        service: &str,
        master: &ConnectionInfo,
    ) -> Result<ConnectionInfo, StoreError> {
        let mut last = StoreError::unreachable("no Sentinel was named");
        for sentinel in sentinels {
            let ask = async {
                let client = Client::open(sentinel.clone())?;
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(Duration::from_secs(1)))
                    .set_response_timeout(Some(Duration::from_secs(1)));
                let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
                let mut command = redis::cmd("SENTINEL");
                command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
                command.query_async::<Option<(String, u16)>>(&mut connection).await
            };
            match ask.await {
                Ok(Some((host, port))) => {
                    let addr = match master.addr() {
                        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                            host,
                            port,
                            insecure: *insecure,
                            tls_params: tls_params.clone(),
                        },
                        _ => ConnectionAddr::Tcp(host, port),
                    };
                    return Ok(master.clone().set_addr(addr));
                }
                Ok(None) => {
                    let text = format!("Sentinel knows no master called {service}");
                    last = StoreError::new(StoreFault::Unexpected, text);
                }
                Err(error) => last = fault::of(&error, &self.secrets()),
            }
        }
        Err(last)
    }

    /// What must not be printed.
    pub(super) fn secrets(&self) -> Vec<String> {
        let of = |info: &ConnectionInfo| info.redis_settings().password().map(str::to_owned);
        match self {
            Self::Server(info) => of(info).into_iter().collect(),
            Self::Sentinel(sentinels, _, master) => sentinels.iter().chain([master]).filter_map(of).collect(),
            Self::Cluster(nodes) => nodes.iter().filter_map(of).collect(),
        }
    }
}

impl Connection {
    pub(super) async fn command(&mut self, command: &Cmd) -> redis::RedisResult<Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command).await,
            // A cluster's connection hands a server's error on as a value.
            Self::Many(connection) => {
                connection.req_packed_command(command).await.and_then(Value::extract_error)
            }
        }
    }

    /// All of them at once where one server has all keys; one after another in a cluster. An error of the connection ends
    /// all, one of a command stands in its place.
    pub(super) async fn commands(
        &mut self,
        commands: &[Cmd],
    ) -> redis::RedisResult<Vec<redis::RedisResult<Value>>> {
        match self {
            Self::One(connection) => {
                let mut pipe = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipe.add_command(command.clone());
                }
                pipe.ignore_errors().query_async(connection).await
            }
            Self::Many(_) => {
                let mut all = Vec::with_capacity(commands.len());
                for command in commands {
                    all.push(self.command(command).await);
                }
                Ok(all)
            }
        }
    }
}
