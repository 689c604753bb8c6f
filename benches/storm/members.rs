//! Members of a JSON object, taken one by one: what is wrong is told by file, member and rule.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A scenario file that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadScenario {
    pub(crate) file: String,
    pub(crate) member: String,
    pub(crate) rule: String,
}

impl fmt::Display for BadScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` {}", self.file, self.member, self.rule)
    }
}

impl std::error::Error for BadScenario {}

pub(crate) type Taken<T> = Result<T, BadScenario>;

/// The members of one object that were not taken yet.
pub(crate) struct Members {
    file: String,
    path: String,
    left: Map<String, Value>,
}

impl Members {
    /// Those of a whole file.
    pub(crate) fn of(file: &str, text: &str) -> Taken<Self> {
        let bad = |rule| BadScenario { file: file.to_owned(), member: "the whole".to_owned(), rule };
        match serde_json::from_str(text).map_err(|error| bad(format!("must be JSON: {error}")))? {
            Value::Object(left) => Ok(Self { file: file.to_owned(), path: String::new(), left }),
            _ => Err(bad("must be an object".to_owned())),
        }
    }

    pub(crate) fn bad(&self, name: &str, rule: impl Into<String>) -> BadScenario {
        BadScenario { file: self.file.clone(), member: format!("{}{name}", self.path), rule: rule.into() }
    }

    /// A member that may be missing.
    pub(crate) fn maybe<T: DeserializeOwned>(&mut self, name: &str) -> Taken<Option<T>> {
        let Some(value) = self.left.remove(name) else { return Ok(None) };
        let shown = value.to_string();
        serde_json::from_value(value)
            .map(Some)
            .map_err(|error| self.bad(name, format!("is of the wrong type ({error}): {shown}")))
    }

    /// A member that must be there.
    pub(crate) fn must<T: DeserializeOwned>(&mut self, name: &str) -> Taken<T> {
        self.maybe(name)?.ok_or_else(|| self.bad(name, "is missing"))
    }

    /// An object, the members of which are taken in turn.
    pub(crate) fn inner(&mut self, name: &str) -> Taken<Option<Self>> {
        let left = self.maybe(name)?;
        Ok(left.map(|left| Self { file: self.file.clone(), path: format!("{}{name}.", self.path), left }))
    }

    /// Objects, in their order; none where the member is missing.
    pub(crate) fn list(&mut self, name: &str) -> Taken<Vec<Self>> {
        let list: Vec<Map<String, Value>> = self.maybe(name)?.unwrap_or_default();
        let one =
            |(n, left)| Self { file: self.file.clone(), path: format!("{}{name}[{n}].", self.path), left };
        Ok(list.into_iter().enumerate().map(one).collect())
    }

    /// A number in this range, its ends included.
    pub(crate) fn number(&mut self, name: &str, least: f64, most: f64) -> Taken<Option<f64>> {
        let number: Option<f64> = self.maybe(name)?;
        match number {
            Some(n) if !(least..=most).contains(&n) => {
                Err(self.bad(name, format!("must be from {least} to {most}, and is {n}")))
            }
            number => Ok(number),
        }
    }

    /// A whole number in this range, its ends included.
    pub(crate) fn count(&mut self, name: &str, least: u64, most: u64) -> Taken<Option<u64>> {
        let number: Option<u64> = self.maybe(name)?;
        match number {
            Some(n) if !(least..=most).contains(&n) => {
                Err(self.bad(name, format!("must be from {least} to {most}, and is {n}")))
            }
            number => Ok(number),
        }
    }

    /// Seconds, up to ten days of them.
    pub(crate) fn seconds(&mut self, name: &str) -> Taken<Option<Duration>> {
        Ok(self.number(name, 0.0, 864_000.0)?.map(Duration::from_secs_f64))
    }

    /// Nothing may be left.
    pub(crate) fn done(self) -> Taken<()> {
        match self.left.keys().next() {
            Some(name) => Err(self.bad(name, "is no member that is known here")),
            None => Ok(()),
        }
    }
}
