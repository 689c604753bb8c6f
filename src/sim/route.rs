//! What a request asks for, read from its method, path, query and headers.

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Uri};

/// The methods that the simulator knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Generate,
    /// With or without `alt=sse`.
    Stream {
        sse: bool,
    },
    CountTokens,
    Embed,
    BatchEmbed,
    ListModels,
    GetModel,
    /// Chat completions in OpenAI's form, streamed where the body says so.
    Chat {
        stream: bool,
    },
    /// Streamed where the body says so.
    CreateInteraction {
        stream: bool,
    },
    GetInteraction {
        stream: bool,
    },
    CancelInteraction,
    DeleteInteraction,
    Unknown,
}

impl Action {
    /// As [`Call::method`](super::Call::method) prints it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Action::Generate => "generateContent",
            Action::Stream { .. } => "streamGenerateContent",
            Action::CountTokens => "countTokens",
            Action::Embed => "embedContent",
            Action::BatchEmbed => "batchEmbedContents",
            Action::ListModels => "models.list",
            Action::GetModel => "models.get",
            Action::Chat { .. } => "chat.completions",
            Action::CreateInteraction { .. } => "interactions.create",
            Action::GetInteraction { .. } => "interactions.get",
            Action::CancelInteraction => "interactions.cancel",
            Action::DeleteInteraction => "interactions.delete",
            Action::Unknown => "unknown",
        }
    }

    pub(super) fn is_stream(self) -> bool {
        matches!(
            self,
            Action::Stream { .. }
                | Action::Chat { stream: true }
                | Action::CreateInteraction { stream: true }
                | Action::GetInteraction { stream: true }
        )
    }

    /// Whether it is one of the Interactions API's, whose errors have a form of their own.
    pub(super) fn is_interaction(self) -> bool {
        matches!(
            self,
            Action::CreateInteraction { .. }
                | Action::GetInteraction { .. }
                | Action::CancelInteraction
                | Action::DeleteInteraction
        )
    }

    /// Whether the body names the model, and whether a stream is asked for.
    pub(super) fn is_told_by_body(self) -> bool {
        matches!(self, Action::Chat { .. } | Action::CreateInteraction { .. })
    }

    pub(super) fn is_generate(self) -> bool {
        matches!(self, Action::Generate | Action::Stream { .. } | Action::CreateInteraction { .. })
    }

    /// Whether a call counts against the model's quota.
    pub(super) fn is_charged(self) -> bool {
        matches!(
            self,
            Action::Generate
                | Action::Stream { .. }
                | Action::Embed
                | Action::BatchEmbed
                | Action::Chat { .. }
                | Action::CreateInteraction { .. }
        )
    }

    /// Google wraps the errors of these in an array.
    pub(super) fn errors_as_array(self) -> bool {
        matches!(self, Action::Stream { sse: false } | Action::Chat { .. })
    }
}

/// Where a request goes. Nothing of the query is kept but `alt`, for the query may hold the key.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) action: Action,
    /// Without the leading `models/`. For [`Action::Chat`] it is known only when the body was read.
    pub(super) model: Option<String>,
    /// The id of an interaction, and the event behind which its stream is to be taken up.
    pub(super) interaction: Option<(String, u64)>,
    pub(super) version: &'static str,
}

impl Route {
    pub(super) fn of(method: &Method, uri: &Uri) -> Self {
        let unknown = Self { action: Action::Unknown, model: None, interaction: None, version: "v1beta" };
        let path = uri.path();
        let (version, rest) = if let Some(rest) = path.strip_prefix("/v1beta/") {
            ("v1beta", rest)
        } else if let Some(rest) = path.strip_prefix("/v1/") {
            ("v1", rest)
        } else {
            return unknown;
        };
        if rest == "openai/chat/completions" && *method == Method::POST {
            return Self { action: Action::Chat { stream: false }, version, ..unknown };
        }
        if rest == "models" && *method == Method::GET {
            return Self { action: Action::ListModels, version, ..unknown };
        }
        if rest == "interactions" && *method == Method::POST {
            return Self { action: Action::CreateInteraction { stream: false }, version, ..unknown };
        }
        if let Some(rest) = rest.strip_prefix("interactions/") {
            let (id, verb) = rest.split_once('/').unwrap_or((rest, ""));
            let stream = query(uri, "stream") == Some("true");
            let action = match (method.as_str(), verb) {
                ("GET", "") => Action::GetInteraction { stream },
                ("DELETE", "") => Action::DeleteInteraction,
                ("POST", "cancel") => Action::CancelInteraction,
                _ => return unknown,
            };
            let after = query(uri, "last_event_id").and_then(|id| id.parse().ok()).unwrap_or(0);
            return Self { action, interaction: Some((id.to_owned(), after)), version, ..unknown };
        }
        let Some(rest) = rest.strip_prefix("models/").filter(|r| !r.is_empty() && !r.contains('/')) else {
            return unknown;
        };
        let (model, action) = match rest.rsplit_once(':') {
            None if *method == Method::GET => (rest, Action::GetModel),
            Some((model, name)) if *method == Method::POST => (
                model,
                match name {
                    "generateContent" => Action::Generate,
                    "streamGenerateContent" => {
                        Action::Stream { sse: query(uri, "alt").is_some_and(|alt| alt == "sse") }
                    }
                    "countTokens" => Action::CountTokens,
                    "embedContent" => Action::Embed,
                    "batchEmbedContents" => Action::BatchEmbed,
                    _ => Action::Unknown,
                },
            ),
            _ => return unknown,
        };
        Self { action, model: Some(model.to_owned()), version, ..unknown }
    }
}

/// The caller's key, from where Google looks for it.
pub(super) fn key(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    header("x-goog-api-key")
        .or_else(|| query(uri, "key"))
        .or_else(|| {
            header(AUTHORIZATION.as_str()).map(|value| value.strip_prefix("Bearer ").unwrap_or(value))
        })
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
}

/// The first value of a query parameter, as it stands there.
fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    uri.query()?.split('&').find_map(|pair| pair.split_once('=').filter(|(n, _)| *n == name).map(|(_, v)| v))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn routes_by_method_path_and_alt() {
        let cases = [
            ("POST", "/v1beta/models/m:generateContent?key=K", Action::Generate, Some("m")),
            ("POST", "/v1/models/m:generateContent", Action::Generate, Some("m")),
            ("POST", "/v1beta/models/m:streamGenerateContent", Action::Stream { sse: false }, Some("m")),
            (
                "POST",
                "/v1/models/m:streamGenerateContent?key=K&alt=sse",
                Action::Stream { sse: true },
                Some("m"),
            ),
            ("POST", "/v1beta/models/m:countTokens", Action::CountTokens, Some("m")),
            ("POST", "/v1beta/models/m:embedContent", Action::Embed, Some("m")),
            ("POST", "/v1beta/models/m:batchEmbedContents", Action::BatchEmbed, Some("m")),
            ("POST", "/v1beta/models/m:sing", Action::Unknown, Some("m")),
            ("GET", "/v1beta/models", Action::ListModels, None),
            ("GET", "/v1beta/models/m", Action::GetModel, Some("m")),
            ("GET", "/v1beta/models/m:generateContent", Action::Unknown, None),
            ("POST", "/v1beta/openai/chat/completions", Action::Chat { stream: false }, None),
            ("POST", "/v1beta/interactions", Action::CreateInteraction { stream: false }, None),
            ("GET", "/v1/interactions/i", Action::GetInteraction { stream: false }, None),
            ("GET", "/v1/interactions/i?stream=true", Action::GetInteraction { stream: true }, None),
            ("POST", "/v1beta/interactions/i/cancel", Action::CancelInteraction, None),
            ("DELETE", "/v1beta/interactions/i", Action::DeleteInteraction, None),
            ("PUT", "/v1beta/interactions/i", Action::Unknown, None),
            ("POST", "/v2/models/m:generateContent", Action::Unknown, None),
            ("GET", "/", Action::Unknown, None),
        ];
        for (method, uri, action, model) in cases {
            let route = Route::of(&method.parse().expect("a method"), &uri.parse().expect("a URI"));
            assert_eq!((route.action, route.model.as_deref()), (action, model), "{method} {uri}");
        }
    }

    #[test]
    fn a_key_is_found_in_three_places() {
        let plain = Uri::from_static("/v1beta/models");
        let mut headers = HeaderMap::new();
        assert_eq!(key(&headers, &plain), None);
        assert_eq!(key(&headers, &Uri::from_static("/?alt=sse&key=Q")).as_deref(), Some("Q"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer B"));
        assert_eq!(key(&headers, &plain).as_deref(), Some("B"));
        headers.insert("x-goog-api-key", HeaderValue::from_static("H"));
        assert_eq!(key(&headers, &plain).as_deref(), Some("H"));
    }
}
