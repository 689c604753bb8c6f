//! Errors of redis-rs and of the server as ours, without secrets.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::fleet::store::{StoreError, StoreFault};

pub(super) fn of(error: &RedisError, secrets: &[String]) -> StoreError {
    let mut text = error.to_string();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(&**secret, "***");
    }
    StoreError::new(kind(error, &text), text)
}

fn kind(error: &RedisError, text: &str) -> StoreFault {
    // Redis 6 puts an error inside of a script behind the script's name.
    let says = |word: &str| error.code() == Some(word) || text.contains(word);
    if says("TGVERSION") {
        return StoreFault::Newer;
    }
    if says("WRONGTYPE") || says("TGFOREIGN") {
        return StoreFault::Foreign;
    }
    if says("READONLY") || says("NOREPLICAS") {
        return StoreFault::ReadOnly;
    }
    // Redis 7 takes no long message of one that has not said who it is.
    if says("NOAUTH") || says("WRONGPASS") || says("NOPERM") || says("unauthenticated") {
        return StoreFault::Denied;
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => StoreFault::Denied,
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => StoreFault::Unreachable,
        ErrorKind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown,
        ) => StoreFault::Unreachable,
        _ => StoreFault::Unexpected,
    }
}
