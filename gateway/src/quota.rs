//! The quota that gateways share: `--quota-store` and the options that belong to it.

use std::fmt;
use std::sync::Arc;

use tower_gemini::KeyLabel;
use tower_gemini::fleet::{Fleet, Outage, RedisStore, keyed_label};

/// The options of this module, without their dashes.
pub const OPTIONS: [&str; 5] =
    ["quota-store", "quota-project", "quota-secret", "quota-outage", "quota-members"];

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
    /// What the rate limit is given.
    pub fn fleet(&self) -> Fleet {
        Fleet::new(self.store.clone()).outage(self.outage)
    }
}

/// What one source says of it.
#[derive(Default)]
pub struct Draft {
    store: Option<RedisStore>,
    project: Option<KeyLabel>,
    secret: Option<Secret>,
    outage: Option<Mode>,
    members: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Strict,
    Share,
    Closed,
    Local,
}

impl Draft {
    /// `source` is how the user called it. No error repeats the value: it may hold a password.
    pub fn set(&mut self, name: &str, source: &str, value: &str) -> Result<(), String> {
        match name {
            "quota-store" => {
                let store = RedisStore::new(value).map_err(|_| {
                    format!("{source} must be redis://[user:password@]host[:port][/db], or rediss:// for TLS")
                })?;
                self.store = Some(store);
            }
            "quota-project" => {
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
                // It stands in the store, in logs and on pages.
                let secret = ["AIza", "AQ.", "ya29."].iter().any(|start| value.starts_with(start));
                if secret || !(1..=100).contains(&value.len()) || !value.chars().all(plain) {
                    return Err(format!(
                        "{source} must be a name of 1 to 100 letters, digits and any of -_.: (and no API key)"
                    ));
                }
                self.project = Some(KeyLabel::new(value));
            }
            "quota-secret" => {
                if !(16..=4096).contains(&value.len()) {
                    return Err(format!("{source} must have from 16 to 4096 bytes"));
                }
                self.secret = Some(Secret(value.into()));
            }
            "quota-outage" => {
                self.outage = Some(match value {
                    "strict" => Mode::Strict,
                    "share" => Mode::Share,
                    "closed" => Mode::Closed,
                    "local" => Mode::Local,
                    _ => return Err(format!("{source} must be strict, share, closed or local")),
                });
            }
            _ => {
                let members = value.parse().ok().filter(|n| (1..=100_000).contains(n));
                let rule = || format!("{source} must be a whole number from 1 to 100000");
                self.members = Some(members.ok_or_else(rule)?);
            }
        }
        Ok(())
    }

    /// What this one does not say, the other one may. `None` without a store.
    pub fn or(self, other: Self, has_clients: bool) -> Result<Option<Settings>, String> {
        let names = self.project.is_some() || self.secret.is_some();
        // An option takes the place of a variable that says whose quota it is, also of the other one of the two.
        let (project, secret) =
            if names { (self.project, self.secret) } else { (other.project, other.secret) };
        let outage = self.outage.or(other.outage);
        let members = self.members.or(other.members);
        let Some(store) = self.store.or(other.store) else {
            let given = [
                ("project", project.is_some()),
                ("secret", secret.is_some()),
                ("outage", outage.is_some()),
                ("members", members.is_some()),
            ];
            return match given.iter().find(|(_, given)| *given) {
                Some((name, _)) => Err(format!("--quota-{name} needs --quota-store")),
                None => Ok(None),
            };
        };
        let outage = match (outage.unwrap_or(Mode::Strict), members) {
            (Mode::Share, Some(members)) => Outage::share(1.0, members),
            (Mode::Share, None) => {
                return Err("--quota-outage share needs --quota-members, the number of gateways".to_owned());
            }
            (_, Some(_)) => return Err("--quota-members is for --quota-outage share alone".to_owned()),
            (Mode::Strict, None) => Outage::Strict,
            (Mode::Closed, None) => Outage::Closed,
            (Mode::Local, None) => Outage::Local,
        };
        let project = match (project, secret) {
            (Some(_), Some(_)) => {
                return Err("--quota-project and --quota-secret exclude each other".to_owned());
            }
            (Some(project), None) => Project::Named(project),
            (None, Some(_)) if has_clients => {
                return Err(
                    "--quota-secret is for callers' own keys: with --clients give --quota-project".to_owned()
                );
            }
            (None, Some(secret)) => Project::Hashed(secret),
            (None, None) if has_clients => Project::Held,
            (None, None) => {
                return Err("--quota-store needs --quota-project, where all calls are of one project, or \
                     --quota-secret, to tell callers' keys apart alike in each gateway"
                    .to_owned());
            }
        };
        Ok(Some(Settings { store, outage, project }))
    }
}
