//! Where values come from: options, variables, the file. The first of them that has one wins; each of them must keep the rule.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};
use tower_gemini::ConfigError;

use super::declared::{DECLARED, Declared, find};
use super::sections::Sections;

/// Who has said a value; an earlier one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Option,
    Variable,
    /// With its line.
    File(usize),
    /// The file, by the name that it has in a section of the library, with its line.
    Section(usize, &'static str),
}

/// What was said of each setting.
#[derive(Clone, Default)]
pub struct Values {
    file: Option<Arc<str>>,
    sections: Arc<Sections>,
    said: BTreeMap<&'static str, (Source, String)>,
}

/// Values may be secrets.
impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Values").field("said", &self.said.keys()).finish_non_exhaustive()
    }
}

impl Values {
    /// The value in force: one that was said, or the default.
    pub fn get(&self, name: &str) -> Option<&str> {
        let said = self.said.get(name).map(|(_, text)| &**text);
        said.or_else(|| find(name).and_then(|declared| declared.default))
    }

    /// Who has said it; `None`: the default.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.said.get(name).map(|(source, _)| source)
    }

    /// Adds a value, unless a source before has one.
    ///
    /// # Errors
    ///
    /// The rule that it breaks, after its place.
    pub fn say(&mut self, declared: &'static Declared, source: Source, text: &str) -> Result<(), String> {
        let text = text.trim();
        (declared.check)(text).map_err(|rule| format!("{} {rule}", self.place(declared, &source)))?;
        if self.said.get(declared.name).is_none_or(|(before, _)| source < *before) {
            self.said.insert(declared.name, (source, text.to_owned()));
        }
        Ok(())
    }

    /// A rule that a setting breaks together with others, after the setting's place.
    pub fn rule(&self, name: &str, rule: &str) -> String {
        match (find(name), self.source(name)) {
            (Some(declared), Some(source)) => format!("{} {rule}", self.place(declared, source)),
            _ => format!("{name} {rule}"),
        }
    }

    fn place(&self, declared: &Declared, source: &Source) -> String {
        match source {
            Source::Option => format!("--{}", declared.option()),
            Source::Variable => declared.variable(),
            Source::File(line) => {
                format!("{}:{line}: {}", self.file.as_deref().unwrap_or_default(), declared.name)
            }
            Source::Section(line, name) => {
                format!("{}:{line}: {name}", self.file.as_deref().unwrap_or_default())
            }
        }
    }

    /// What the file says in the library's sections.
    pub fn sections(&self) -> &Sections {
        &self.sections
    }

    /// What a layer does not take: the setting's place, and the rule.
    pub fn layer_rule(&self, section: &str, error: &ConfigError) -> String {
        self.sections.rule(self.file.as_deref().unwrap_or_default(), section, error)
    }

    /// That a setting is said twice in the file, by two names.
    pub fn clash(&self, place: &Source, name: &str) -> String {
        match find(name) {
            Some(declared) => {
                format!("{} is the same as {name}, which the file says, too", self.place(declared, place))
            }
            None => name.to_owned(),
        }
    }

    /// Of two settings that exclude each other the one of the earlier source stays.
    ///
    /// # Errors
    ///
    /// That both are of one source.
    pub fn exclusive(&mut self, one: &'static str, other: &'static str) -> Result<(), String> {
        let kind = |source: &Source| std::mem::discriminant(source);
        let (Some(a), Some(b)) = (self.source(one), self.source(other)) else { return Ok(()) };
        if kind(a) == kind(b) {
            let other = find(other).map(|other| format!("and --{} exclude each other", other.option()));
            return Err(self.rule(one, &other.unwrap_or_default()));
        }
        let loses = if a < b { other } else { one };
        self.said.remove(loses);
        Ok(())
    }

    /// Forgets a value.
    pub fn forget(&mut self, name: &str) {
        self.said.remove(name);
    }

    /// Adds what a file says.
    ///
    /// # Errors
    ///
    /// `FILE:LINE: RULE`, without a full stop.
    pub fn read(&mut self, file: &str, text: &str) -> Result<(), String> {
        self.file = Some(file.into());
        let line = |at: usize| text.get(..at).unwrap_or(text).matches('\n').count() + 1;
        let table = DeTable::parse(text).map_err(|error| {
            // The first line alone: the others quote the file.
            let rule = error.message().lines().next().unwrap_or("is not TOML").to_owned();
            format!("{file}:{}: {rule}", line(error.span().map_or(0, |span| span.start)))
        })?;
        let mut sections = DeTable::new();
        for (name, value) in table.into_inner() {
            let at = line(name.span().start);
            // Two names are both: the setting of the gateway has a value, the section has members.
            let is_section = Sections::has(name.get_ref()) && value.get_ref().is_table();
            if is_section || Sections::has(name.get_ref()) && find(name.get_ref()).is_none() {
                sections.insert(name, value);
                continue;
            }
            let name = name.into_inner();
            let Some(declared) = find(&name) else {
                let near = nearest(&name).map(|near| format!("; {near} is one")).unwrap_or_default();
                // The name alone: what stands after it may be a secret.
                let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
                return Err(format!("{file}:{at}: there is no setting {shown}{near}"));
            };
            let text = match value.into_inner() {
                DeValue::Array(values) if declared.list => {
                    let texts: Option<Vec<String>> =
                        values.into_iter().map(|value| scalar(value.get_ref())).collect();
                    texts.map(|texts| texts.join(";"))
                }
                value => scalar(&value),
            };
            let Some(text) = text else {
                let what = if declared.list { "a value or an array of them" } else { "one value" };
                return Err(format!("{file}:{at}: {} must be {what}", declared.name));
            };
            self.say(declared, Source::File(at), &text)?;
        }
        let read = Sections::read(sections, &line).map_err(|(at, rule)| format!("{file}:{at}: {rule}"));
        let mut sections = read?;
        sections.say(self)?;
        self.sections = Arc::new(sections);
        Ok(())
    }

    /// Every setting with its value and where that is from. Secrets are left out.
    pub fn explained(&self) -> String {
        let mut lines = String::new();
        let mut heading = "";
        for declared in DECLARED {
            if declared.heading != heading {
                heading = declared.heading;
                lines += &format!("{}# {heading}\n", if lines.is_empty() { "" } else { "\n" });
            }
            let source = match self.source(declared.name) {
                None => "default".to_owned(),
                Some(source @ (Source::File(_) | Source::Section(..))) => {
                    let place = self.place(declared, source);
                    place.rsplit_once(": ").map(|(place, _)| place.to_owned()).unwrap_or(place)
                }
                Some(source) => self.place(declared, source),
            };
            let value = match self.get(declared.name) {
                None => format!("# {}", declared.name),
                Some(_) if declared.secret => format!("# {} = (given, not shown)", declared.name),
                Some(text) => format!("{} = {}", declared.name, quoted(text)),
            };
            lines += &format!("{value:<48} # {source}\n");
        }
        // What is no setting of the gateway, as its members are written.
        let rest = toml::to_string(&self.sections.config).unwrap_or_default();
        if !rest.is_empty() {
            lines += &format!("\n# {}\n{rest}", self.file.as_deref().unwrap_or_default());
        }
        lines
    }
}

/// As TOML has it, whose texts are escaped as those of JSON.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(is) => Some(is.to_string()),
        _ => None,
    }
}

/// The setting whose name is least far away, if it is near.
fn nearest(name: &str) -> Option<&'static str> {
    nearest_of(name, DECLARED.iter().map(|declared| declared.name))
}

/// The same among these names.
pub(super) fn nearest_of(name: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let far = |other: &str| distance(&name.replace('-', "_"), other);
    let near = names.map(|other| (far(other), other)).min()?;
    (near.0 <= 3).then_some(near.1)
}

/// Letters to add, take out or change. Names are short; what is longer is far away.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = changed.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
