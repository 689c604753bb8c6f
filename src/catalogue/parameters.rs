//! What a model accepts in its parameters, as the file says it.

use serde_json::Value;

use crate::config_error::ConfigError;

/// The ranges of a model's parameters. Where the file says nothing, nothing is known, and nothing is to be refused.
///
/// Part of a [`Model`](super::Model): the ranges that the file gives for all models, with the model's own over them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    candidate_count: Option<Range>,
    temperature: Option<Range>,
    advised_temperature: Option<f64>,
    top_p: Option<Range>,
    top_k: Option<Range>,
    thinking_budget: Option<ThinkingBudget>,
    thinking_levels: Option<Vec<String>>,
}

/// From and to, both included. No upper end is infinity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    from: f64,
    to: f64,
}

impl Range {
    /// The least value.
    #[must_use]
    pub const fn from(&self) -> f64 {
        self.from
    }

    /// The greatest value; infinite where none is known.
    #[must_use]
    pub const fn to(&self) -> f64 {
        self.to
    }

    /// Whether the value is in it. `NaN` is in none.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        value >= self.from && value <= self.to
    }

    /// From a list of two numbers, of which the second may be `null`.
    fn read(value: &Value) -> Option<Self> {
        let [from, to] = value.as_array()?.as_slice() else { return None };
        let range =
            Self { from: from.as_f64()?, to: if to.is_null() { f64::INFINITY } else { to.as_f64()? } };
        (range.from <= range.to).then_some(range)
    }
}

/// What a model takes as `thinkingBudget`, in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThinkingBudget {
    range: Range,
    off: bool,
    dynamic: bool,
}

impl ThinkingBudget {
    /// The budgets that are a count of tokens.
    #[must_use]
    pub const fn range(&self) -> Range {
        self.range
    }

    /// Whether 0 turns thinking off.
    #[must_use]
    pub const fn can_be_off(&self) -> bool {
        self.off
    }

    /// Whether -1 leaves it to the model.
    #[must_use]
    pub const fn can_be_dynamic(&self) -> bool {
        self.dynamic
    }

    /// Whether the model takes this budget.
    #[must_use]
    pub fn contains(&self, budget: f64) -> bool {
        self.range.contains(budget) || self.off && budget == 0.0 || self.dynamic && budget == -1.0
    }

    fn read(value: &Value) -> Option<Self> {
        let flag = |name: &str| value.get(name).and_then(Value::as_bool);
        Some(Self { range: Range::read(value.get("range")?)?, off: flag("off")?, dynamic: flag("dynamic")? })
    }
}

impl Parameters {
    /// How many candidates may be asked for.
    #[must_use]
    pub const fn candidate_count(&self) -> Option<Range> {
        self.candidate_count
    }

    /// The temperatures that are accepted.
    #[must_use]
    pub const fn temperature(&self) -> Option<Range> {
        self.temperature
    }

    /// The temperature below which Google advises not to go: answers loop or get worse, and are not refused.
    #[must_use]
    pub const fn advised_temperature(&self) -> Option<f64> {
        self.advised_temperature
    }

    /// The values of `topP`.
    #[must_use]
    pub const fn top_p(&self) -> Option<Range> {
        self.top_p
    }

    /// The values of `topK`.
    #[must_use]
    pub const fn top_k(&self) -> Option<Range> {
        self.top_k
    }

    /// The budgets for thinking; `None` where the model's are not known.
    #[must_use]
    pub const fn thinking_budget(&self) -> Option<ThinkingBudget> {
        self.thinking_budget
    }

    /// The levels of thinking, in lower case; empty where the model has none, `None` where they are not known.
    #[must_use]
    pub fn thinking_levels(&self) -> Option<&[String]> {
        self.thinking_levels.as_deref()
    }

    /// Reads the member `parameters` over what is known already.
    pub(super) fn read(value: Option<&Value>, known: &Self) -> Result<Self, ConfigError> {
        const RULE: ConfigError = ConfigError::new(
            "parameters",
            "must hold lists `[from, to]`, a number, an object with `range`, `off` and `dynamic`, or a list of texts",
        );
        let mut read = known.clone();
        let Some(value) = value else { return Ok(read) };
        for (name, value) in value.as_object().ok_or(RULE)? {
            let range = match name.as_str() {
                "candidate_count" => &mut read.candidate_count,
                "temperature" => &mut read.temperature,
                "top_p" => &mut read.top_p,
                "top_k" => &mut read.top_k,
                "advised_temperature" => {
                    read.advised_temperature = Some(value.as_f64().ok_or(RULE)?);
                    continue;
                }
                "thinking_budget" => {
                    read.thinking_budget = Some(ThinkingBudget::read(value).ok_or(RULE)?);
                    continue;
                }
                "thinking_levels" => {
                    let texts = value.as_array().ok_or(RULE)?.iter();
                    let texts: Option<Vec<_>> = texts.map(|text| text.as_str().map(str::to_owned)).collect();
                    read.thinking_levels = Some(texts.ok_or(RULE)?);
                    continue;
                }
                // Members of a newer file.
                _ => continue,
            };
            *range = Some(Range::read(value).ok_or(RULE)?);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_models_own_ranges_lie_over_those_of_all() {
        let all = json!({"candidate_count": [1, 8], "top_k": [1, null], "more": true});
        let all = Parameters::read(Some(&all), &Parameters::default()).expect("valid");
        let own = json!({
            "top_k": [1, 40],
            "thinking_budget": {"range": [128, 32768], "off": false, "dynamic": true},
            "thinking_levels": ["low", "high"],
            "advised_temperature": 1.0,
        });
        let own = Parameters::read(Some(&own), &all).expect("valid");
        assert_eq!(own.candidate_count(), all.candidate_count());
        let (of_all, of_own) = (all.top_k().expect("a range"), own.top_k().expect("a range"));
        assert!(of_all.contains(1e9) && !of_own.contains(41.0) && of_own.contains(40.0));
        assert!(!of_all.contains(0.0) && !of_all.contains(f64::NAN));
        let budget = own.thinking_budget().expect("a budget");
        let taken = [-1.0, 0.0, 1.0, 127.0, 128.0, 32_768.0, 32_769.0].map(|tokens| budget.contains(tokens));
        assert_eq!(taken, [true, false, false, false, true, true, false]);
        assert_eq!(own.thinking_levels(), Some(&["low".to_owned(), "high".to_owned()][..]));
        assert_eq!(own.advised_temperature(), Some(1.0));
        assert_eq!(Parameters::read(None, &own).expect("nothing to read"), own);
    }

    #[test]
    fn ranges_of_another_form_are_refused() {
        for value in [
            json!([]),
            json!({"temperature": 1}),
            json!({"temperature": [2, 1]}),
            json!({"temperature": [1]}),
            json!({"temperature": [null, 1]}),
            json!({"advised_temperature": "1"}),
            json!({"thinking_budget": [1, 2]}),
            json!({"thinking_budget": {"range": [1, 2], "off": true}}),
            json!({"thinking_levels": "low"}),
            json!({"thinking_levels": [1]}),
        ] {
            let refused = Parameters::read(Some(&value), &Parameters::default()).expect_err("not valid");
            assert_eq!(refused.field(), "parameters", "{value}");
        }
    }
}
