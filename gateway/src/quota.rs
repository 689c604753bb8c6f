//! The quota that gateways share: `--quota-store` and the options that belong to it.

use std::fmt;
use std::sync::Arc;

use tower_gemini::KeyLabel;
use tower_gemini::config::StoreConfig;
use tower_gemini::fleet::{Fleet, Outage, RedisStore, keyed_label};

use crate::settings::{self, rules::Read};

/// A store, and how this gateway uses it. Prints no secret and no password.
#[derive(Clone, Debug)]
pub struct Settings {
    store: RedisStore,
    outage: Outage,
    pub project: Project,
}

/// Whose quota a call draws on.
#[derive(Clone, Debug)]
pub enum Project {
    /// The one of this name, for all calls.
    Named(KeyLabel),
    /// The one of the caller's key, by a hash that all gateways with this secret make alike.
    Hashed(Secret),
    /// The one of the key that the gateway holds for its clients: there is only one.
    Held,
}

/// What keys are hashed with. Clones share it.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The label of a caller's key.
    pub fn label(&self, key: &str) -> KeyLabel {
        KeyLabel::new(keyed_label(self.0.as_bytes(), key.as_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl Settings {
    /// What the rate limit is given, with what the section `[store]` says besides.
    pub fn fleet(&self, section: &StoreConfig) -> Fleet {
        let mut fleet = Fleet::new(self.store.clone()).outage(self.outage);
        if section.hide_names == Some(true) {
            fleet = fleet.hide_names();
        }
        if let Some(namespace) = &section.namespace {
            fleet = fleet.namespace(&**namespace);
        }
        section.weight.into_iter().fold(fleet, Fleet::weight)
    }
}

/// What happens without the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Strict,
    Share,
    Closed,
    Local,
}

// ===== the rules of its settings; none repeats the value, which may hold a password =====

pub fn store(text: &str) -> Read<RedisStore> {
    let rule = "must be redis://[user:password@]host[:port][/db], or rediss:// for TLS";
    RedisStore::new(text).map_err(|_| rule.to_owned())
}

pub fn project(text: &str) -> Read<KeyLabel> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    // It stands in the store, in logs and on pages.
    let secret = ["AIza", "AQ.", "ya29."].iter().any(|start| text.starts_with(start));
    if secret || !(1..=100).contains(&text.len()) || !text.chars().all(plain) {
        return Err("must be a name of 1 to 100 letters, digits and any of -_.: (and no API key)".to_owned());
    }
    Ok(KeyLabel::new(text))
}

pub fn secret(text: &str) -> Read<Secret> {
    if !(16..=4096).contains(&text.len()) {
        return Err("must have from 16 to 4096 bytes".to_owned());
    }
    Ok(Secret(text.into()))
}

pub fn mode(text: &str) -> Read<Mode> {
    match text {
        "strict" => Ok(Mode::Strict),
        "share" => Ok(Mode::Share),
        "closed" => Ok(Mode::Closed),
        "local" => Ok(Mode::Local),
        _ => Err("must be strict, share, closed or local".to_owned()),
    }
}

impl Settings {
    /// `None` without a store.
    pub fn of(all: &settings::Settings) -> Result<Option<Self>, String> {
        let broken = |name: &str, rule: &str| Err(all.values.rule(name, rule));
        let Some(store) = &all.quota_store else {
            let given = ["quota_project", "quota_secret", "quota_outage", "quota_members"];
            return match given.iter().find(|name| all.values.source(name).is_some()) {
                Some(name) => broken(name, "needs --quota-store"),
                None => Ok(None),
            };
        };
        let members = all.quota_members.and_then(|members| u32::try_from(members).ok());
        let outage = match (all.quota_outage.unwrap_or(Mode::Strict), members) {
            (Mode::Share, Some(members)) => Outage::share(1.0, members),
            (Mode::Share, None) => {
                return broken("quota_outage", "share needs --quota-members, the number of gateways");
            }
            (_, Some(_)) => return broken("quota_members", "is for --quota-outage share alone"),
            (Mode::Strict, None) => Outage::Strict,
            (Mode::Closed, None) => Outage::Closed,
            (Mode::Local, None) => Outage::Local,
        };
        let project = match (&all.quota_project, &all.quota_secret) {
            (Some(project), _) => Project::Named(project.clone()),
            (None, Some(_)) if all.clients.is_some() => {
                return broken(
                    "quota_secret",
                    "is for callers' own keys: with --clients give --quota-project",
                );
            }
            (None, Some(secret)) => Project::Hashed(secret.clone()),
            (None, None) if all.clients.is_some() => Project::Held,
            (None, None) => {
                return broken(
                    "quota_store",
                    "needs --quota-project, where all calls are of one project, or --quota-secret, to tell \
                     callers' keys apart alike in each gateway",
                );
            }
        };
        Ok(Some(Self { store: store.clone(), outage, project }))
    }
}
