//! Which models there are, until when, and what comes after them: one dated file, compiled in.
//!
//! Google retires models a few times a year. A retired model answers with a 404, with a 400 or a 429 in between, or its
//! requests are served by another one. The catalogue says which models these are, so that a verdict can name the
//! successor ([`Verdict::retired`](crate::Verdict::retired)), and what each of them accepts in its parameters
//! ([`Model::parameters`]). By itself it decides nothing: no request is held back or rewritten because of it, since a file that
//! is compiled in grows old. The [preflight](crate::preflight), where it is asked for, goes by it.
//!
//! # Replacing it
//!
//! [`Catalogue::builtin`] is the file of this version of the crate; [`read_on`](Catalogue::read_on) says how old it is. A newer
//! one of the same form is read by [`Catalogue::from_json`] and made the one that counts by [`Catalogue::install`], for the whole
//! process and from then on. Replacing takes a lock for the length of a pointer's copy; so does looking, which happens for
//! failures only.
//!
//! # Examples
//!
//! ```
//! use tower_gemini::catalogue::Catalogue;
//!
//! let model = Catalogue::builtin().model("gemini-2.5-pro").expect("it is in the file");
//! assert_eq!((model.retires(), model.successor()), (Some("2026-12-01"), Some("gemini-3.8-flash")));
//! ```
//!
//! A newer file:
//!
//! ```
//! use tower_gemini::catalogue::Catalogue;
//!
//! let newer = Catalogue::from_json(
//!     r#"{"read": "2027-03-01", "models": [{"name": "gemini-9-pro", "retires": "2027-06-01", "successor": "gemini-10-pro"}]}"#,
//! )?;
//! newer.install();
//! assert!(Catalogue::current().model("gemini-9-pro").is_some());
//! # Catalogue::builtin().clone().install();
//! # Ok::<(), tower_gemini::ConfigError>(())
//! ```

mod parameters;

use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

pub use self::parameters::{Parameters, Range, ThinkingBudget};
use crate::config_error::ConfigError;

static BUILTIN: LazyLock<Arc<Catalogue>> = LazyLock::new(|| {
    let read = Catalogue::from_json(include_str!("models.json"));
    Arc::new(read.expect("the file is of its form: a test reads it"))
});
static CURRENT: RwLock<Option<Arc<Catalogue>>> = RwLock::new(None);

/// The models that are known. See the [module documentation](self).
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    read: String,
    sources: Vec<String>,
    parameters: Parameters,
    models: Vec<Model>,
}

/// One model of a [`Catalogue`].
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    name: String,
    aliases: Vec<String>,
    retires: Option<String>,
    successor: Option<String>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    parameters: Parameters,
}

impl Catalogue {
    /// The file of this version of the crate.
    #[must_use]
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// The one that counts: the last one that was [installed](Self::install), else the built-in one.
    #[must_use]
    pub fn current() -> Arc<Self> {
        let installed = CURRENT.read().unwrap_or_else(PoisonError::into_inner).clone();
        installed.unwrap_or_else(|| Arc::clone(&BUILTIN))
    }

    /// Makes this the one that counts, for the whole process.
    pub fn install(self) {
        *CURRENT.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(self));
    }

    /// Reads a file of the form of the built-in one: an object with `read` (the day on which its facts were read),
    /// optionally `sources` (a list of texts), and `models`, each with a `name` and optionally `aliases` (a list of texts),
    /// `retires` (a day), `successor`, `input_tokens` and `output_tokens`. Days are written `2026-12-01`. Other members are passed over.
    ///
    /// `parameters` of the file, and of a model over it, is an object with any of `candidate_count`, `temperature`, `top_p` and
    /// `top_k` (lists of from and to, both included; no end is `null`), `advised_temperature` (a number), `thinking_budget` (an
    /// object with `range`, `off` and `dynamic`) and `thinking_levels` (a list of texts in lower case).
    ///
    /// # Errors
    ///
    /// `catalogue` where the text is no such object, `read` or `retires` where it is no day, `name` where one is missing, empty or
    /// there twice, `parameters` where one is of another form, `successor` where a model that has one does not retire, or names itself.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        const FORM: ConfigError =
            ConfigError::new("catalogue", "must be a JSON object with `read` and `models`");
        let file: Value = serde_json::from_str(text).map_err(|_| FORM)?;
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let read = text(&file, "read").ok_or(FORM)?;
        if day(&read).is_none() {
            return Err(ConfigError::new("read", "must be a day such as 2026-12-01"));
        }
        let parameters = Parameters::read(file.get("parameters"), &Parameters::default())?;
        let mut models: Vec<Model> = Vec::new();
        for entry in file.get("models").and_then(Value::as_array).ok_or(FORM)? {
            let model = Model {
                name: text(entry, "name").unwrap_or_default(),
                aliases: texts(entry.get("aliases")),
                retires: text(entry, "retires"),
                successor: text(entry, "successor"),
                input_tokens: entry.get("input_tokens").and_then(Value::as_u64),
                output_tokens: entry.get("output_tokens").and_then(Value::as_u64),
                parameters: Parameters::read(entry.get("parameters"), &parameters)?,
            };
            if model.name.is_empty() || models.iter().any(|other| other.name == model.name) {
                return Err(ConfigError::new("name", "must be there once for each model"));
            }
            if model.retires.as_deref().is_some_and(|retires| day(retires).is_none()) {
                return Err(ConfigError::new("retires", "must be a day such as 2026-12-01"));
            }
            if model.successor.is_some() && model.retires.is_none()
                || model.successor.as_ref() == Some(&model.name)
            {
                return Err(ConfigError::new("successor", "must be another model, of one that retires"));
            }
            models.push(model);
        }
        let sources = texts(file.get("sources"));
        Ok(Self { read, sources, parameters, models })
    }

    /// The day on which its facts were read, such as `2026-11-29`.
    #[must_use]
    pub fn read_on(&self) -> &str {
        &self.read
    }

    /// Where they were read.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(String::as_str)
    }

    /// The ranges of parameters that the file gives for all models.
    #[must_use]
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Every model, in the order of the file.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.models.iter()
    }

    /// The model of this name, or with this alias, which may have `models/` or `publishers/google/models/` in front of it.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Model> {
        let name = bare(name);
        let named = self.models.iter().find(|model| model.name == name);
        named.or_else(|| self.models.iter().find(|model| model.aliases.iter().any(|alias| alias == name)))
    }

    /// Whether an answer whose `modelVersion` is `answered` is one of another model than `asked`, as Google answers for
    /// retired ones.
    ///
    /// It is not where one name is the other with versions or stages behind it (`-001`, `-preview-09-2026`), where what was
    /// asked for is an alias by its name (`-latest`) or by this catalogue, and for tuned models and endpoints, whose names
    /// are their owner's.
    ///
    /// ```
    /// use tower_gemini::catalogue::Catalogue;
    ///
    /// let catalogue = Catalogue::builtin();
    /// assert!(catalogue.is_redirect("gemini-2.5-pro", "gemini-3.8-flash"));
    /// assert!(!catalogue.is_redirect("gemini-3.8-flash", "gemini-3.8-flash-001"));
    /// assert!(!catalogue.is_redirect("gemini-flash-latest", "gemini-3.8-flash"));
    /// ```
    #[must_use]
    pub fn is_redirect(&self, asked: &str, answered: &str) -> bool {
        let of_its_own = ["tunedModels/", "endpoints/"].iter().any(|own| asked.contains(own));
        let (asked, answered) = (bare(asked), bare(answered));
        if of_its_own
            || asked.is_empty()
            || answered.is_empty()
            || is_alias(asked)
            || is_same(asked, answered)
        {
            return false;
        }
        // An alias and the name that it stands for are one model.
        let known = |name: &str| self.model(name).map_or(name, Model::name).to_owned();
        !is_same(&known(asked), &known(answered))
    }
}

impl Model {
    /// Its name, without `models/`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Other names of it.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.aliases.iter().map(String::as_str)
    }

    /// The day on which it retires, such as `2026-12-01`; `None` where none was announced.
    #[must_use]
    pub fn retires(&self) -> Option<&str> {
        self.retires.as_deref()
    }

    /// What is to be used instead.
    #[must_use]
    pub fn successor(&self) -> Option<&str> {
        self.successor.as_deref()
    }

    /// The most tokens of input, where the file says it.
    #[must_use]
    pub const fn input_tokens(&self) -> Option<u64> {
        self.input_tokens
    }

    /// The most tokens of output, where the file says it.
    #[must_use]
    pub const fn output_tokens(&self) -> Option<u64> {
        self.output_tokens
    }

    /// What it accepts in its parameters.
    #[must_use]
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Whether its day has come, in UTC.
    #[must_use]
    pub fn is_retired(&self, now: SystemTime) -> bool {
        self.retires().and_then(day).is_some_and(|day| now >= day)
    }
}

/// All texts of a list; of anything else none.
fn texts(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

fn bare(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Whether a name says itself that it stands for whatever is the newest.
fn is_alias(name: &str) -> bool {
    name.ends_with("-latest") || name.contains("-latest-")
}

/// Whether the names are of one model, but for versions and stages.
fn is_same(one: &str, other: &str) -> bool {
    const STAGES: [&str; 5] = ["preview", "exp", "experimental", "latest", "stable"];
    let stem = |name: &str| {
        let mut stem = name.to_ascii_lowercase();
        while let Some((before, last)) = stem.rsplit_once('-') {
            // The first number is the model's own: `gemini-3`, `gemini-2.5`.
            let is_version = last.len() > 1 && last.bytes().all(|byte| byte.is_ascii_digit());
            if !is_version && !STAGES.contains(&last) {
                break;
            }
            stem.truncate(before.len());
        }
        stem
    };
    stem(one) == stem(other)
}

/// The beginning of a day such as `2026-12-01` in UTC.
fn day(text: &str) -> Option<SystemTime> {
    let date: jiff::civil::Date = text.parse().ok().filter(|_| text.len() == 10)?;
    let days = jiff::civil::date(1970, 1, 1).until(date).ok()?.get_days();
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(days).ok()? * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_file_is_of_its_form_and_of_its_time() {
        let catalogue = Catalogue::builtin();
        let read = day(catalogue.read_on()).expect("a day");
        assert!(
            catalogue.sources().all(|source| source.starts_with("https://"))
                && catalogue.sources().count() > 0
        );
        assert!(catalogue.models().count() > 10);
        for model in catalogue.models() {
            assert!(model.name().starts_with("gemini-"), "{}", model.name());
            if let Some(successor) = model.successor() {
                let next =
                    catalogue.model(successor).unwrap_or_else(|| panic!("{successor} is not in the file"));
                assert!(next.retires().is_none(), "{successor} retires, too");
            }
        }
        // Google announces retirements half a year ahead: a file that is older knows too little.
        let oldest = Duration::from_secs(366 * 86_400);
        assert!(crate::time::wall_clock() < read + oldest, "read on {}: read it anew", catalogue.read_on());
    }

    #[test]
    fn a_day_is_a_day() {
        let seconds = |text: &str| day(text)?.duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs());
        assert_eq!(seconds("1970-01-02"), Some(86_400));
        assert_eq!(seconds("2026-12-01"), Some(1_796_083_200));
        for text in ["", "2026-13-01", "2026-12-1", "20261201", "2026-12-01T00:00", "1969-12-31", "soon"] {
            assert_eq!(day(text), None, "{text}");
        }
        let model = Catalogue::builtin().model("models/gemini-2.5-pro").expect("a model");
        let eve = day("2026-12-01").expect("a day") - Duration::from_secs(1);
        assert_eq!([model.is_retired(eve), model.is_retired(eve + Duration::from_secs(1))], [false, true]);
    }

    #[test]
    fn another_model_is_one_but_for_versions_stages_and_aliases() {
        let catalogue = Catalogue::from_json(
            r#"{"read":"2026-11-29","models":[{"name":"gemini-9-pro","aliases":["gemini-pro"]},{"name":"gemini-9-flash"}]}"#,
        )
        .expect("valid");
        for (asked, answered, is_redirect) in [
            ("gemini-9-flash", "gemini-9-flash", false),
            ("models/gemini-9-flash", "publishers/google/models/gemini-9-flash", false),
            ("gemini-9-flash", "gemini-9-flash-001", false),
            ("gemini-9-flash-001", "gemini-9-flash-002", false),
            ("gemini-9-flash", "gemini-9-flash-preview-05-20", false),
            ("gemini-9-flash-preview", "gemini-9-flash-preview-09-2026", false),
            ("gemini-flash-latest", "gemini-10-flash", false),
            ("gemini-pro", "gemini-9-pro", false),
            ("gemini-pro", "gemini-9-pro-002", false),
            ("gemini-9-pro", "gemini-pro", false),
            ("tunedModels/mine", "gemini-9-flash", false),
            ("endpoints/5", "gemini-9-flash", false),
            ("gemini-9-flash", "", false),
            ("gemini-9-flash", "gemini-9-pro", true),
            ("gemini-9-flash", "gemini-9-flash-lite", true),
            ("gemini-9-flash-lite", "gemini-9-flash", true),
            ("gemini-3-flash", "gemini-4-flash", true),
            ("gemini-2.5-pro", "gemini-3.8-flash", true),
            ("gemini-pro", "gemini-10-pro", true),
            ("my-own", "gemini-9-flash", true),
        ] {
            assert_eq!(catalogue.is_redirect(asked, answered), is_redirect, "{asked} {answered}");
        }
    }

    #[test]
    fn a_file_of_another_form_is_refused() {
        for (text, field) in [
            ("[]", "catalogue"),
            ("no", "catalogue"),
            (r#"{"read":"2026-11-29"}"#, "catalogue"),
            (r#"{"read":"today","models":[]}"#, "read"),
            (r#"{"read":"2026-11-29","models":[{}]}"#, "name"),
            (r#"{"read":"2026-11-29","models":[{"name":"a"},{"name":"a"}]}"#, "name"),
            (r#"{"read":"2026-11-29","models":[{"name":"a","retires":"soon"}]}"#, "retires"),
            (r#"{"read":"2026-11-29","models":[{"name":"a","successor":"b"}]}"#, "successor"),
            (
                r#"{"read":"2026-11-29","models":[{"name":"a","retires":"2027-01-01","successor":"a"}]}"#,
                "successor",
            ),
        ] {
            assert_eq!(Catalogue::from_json(text).expect_err(text).field(), field, "{text}");
        }
        let small = Catalogue::from_json(r#"{"read":"2026-11-29","models":[],"more":1}"#).expect("valid");
        assert_eq!((small.models().count(), small.sources().count()), (0, 0));
        assert_eq!(small.parameters(), &Parameters::default());
    }
}
