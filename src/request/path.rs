//! Reads a path. Pure, linear in the path's length, and without allocation unless the path is percent-encoded.

use std::borrow::Cow;

use super::{Method, Surface, Target};

/// Far longer than a model's name or a project's id; bounds what a key may hold.
const MAX_NAME: usize = 256;

/// What method and path say. [`Surface::Unknown`] when no version segment is followed by a known resource.
pub(super) fn read<'a>(http: Option<&http::Method>, path: &'a str) -> Target<'a> {
    let mut segments = Segments::of(path);
    let mut door = Door::Plain;
    while let Some(segment) = segments.next() {
        // A version that leads nowhere may be a part of the gateway's prefix: `/v1/{account}/gemini/v1beta/models`.
        // Each try looks a fixed number of segments ahead, so the whole stays linear.
        if let Some(target) = behind_version(segment.clone(), segments.clone(), door, http) {
            return target;
        }
        door = match &*segment {
            "upload" => Door::Upload,
            "download" => Door::Download,
            _ => Door::Plain,
        };
    }
    Target::new(Surface::Unknown)
}

/// Whether the query asks for a stream. Nothing else of it is looked at, and nothing of it is kept.
pub(super) fn asks_for_stream(query: &str, method: Method) -> bool {
    query.split('&').any(|pair| match pair {
        "alt=sse" | "$alt=sse" | "%24alt=sse" => true,
        "stream=true" => method == Method::InteractionsGet,
        _ => false,
    })
}

/// The segment before the version: Google's media endpoints stand there.
#[derive(Clone, Copy, PartialEq)]
enum Door {
    Plain,
    Upload,
    Download,
}

fn behind_version<'a>(
    version: Cow<'a, str>,
    mut rest: Segments<'a>,
    door: Door,
    http: Option<&http::Method>,
) -> Option<Target<'a>> {
    let (version, verb) = split_verb(version);
    let kind = version_kind(&version)?;
    if kind == Version::Internal {
        let mut target = Target::new(Surface::CodeAssist);
        target.method = match verb {
            Some(verb) if rest.next().is_none() => Method::from_verb(&verb),
            None if rest.next()? == "operations" => Method::Operations,
            _ => Method::Other,
        };
        return Some(target);
    }
    if verb.is_some() {
        return None;
    }

    let from = rest.clone();
    let (resource, verb) = split_verb(rest.next()?);
    let mut target = Target::new(match &*resource {
        "models" | "tunedModels" | "dynamic" | "files" | "cachedContents" | "batches" | "operations" => {
            Surface::GeminiApi
        }
        "authTokens" | "auth_tokens" | "corpora" | "fileSearchStores" | "generatedFiles" => {
            Surface::GeminiApi
        }
        "interactions" => Surface::Interactions,
        "openai" if verb.is_none() => Surface::OpenAi,
        "projects" | "publishers" if verb.is_none() => Surface::Vertex,
        _ => return None,
    });
    if verb.is_some() {
        // Something is asked of the whole collection: `files:register`.
        return Some(target);
    }
    match &*resource {
        "models" | "tunedModels" | "dynamic" => models(&mut target, from, http),
        "files" => target.method = files(rest, door, http),
        "cachedContents" => target.method = Method::CachedContents,
        "batches" => target.method = Method::Batches,
        "operations" => target.method = Method::Operations,
        "interactions" => interactions(&mut target, rest, http),
        "openai" => openai(&mut target, rest, door, http),
        "publishers" => vertex(&mut target, from, door, http),
        "projects" => {
            target.project = name(rest.next()?);
            if rest.next()? != "locations" {
                return None;
            }
            // A verb here asks something of the location itself.
            let (location, verb) = split_verb(rest.next()?);
            target.location = name(location);
            if verb.is_none() {
                vertex(&mut target, rest, door, http);
            }
        }
        _ => {}
    }
    Some(target)
}

/// `{models|tunedModels|dynamic}[/{id}[:{verb}]]`, from the collection on.
fn models<'a>(target: &mut Target<'a>, mut rest: Segments<'a>, http: Option<&http::Method>) {
    let mut from = rest.clone();
    let Some(mut collection) = rest.next() else { return };
    // `models/tunedModels/x` and `models/models/x` come from clients that put a full name into a template.
    while collection == "models" {
        let here = rest.clone();
        match rest.clone().next() {
            Some(next) if next == "models" || next == "tunedModels" => {
                rest.next();
                (from, collection) = (here, next);
            }
            _ => break,
        }
    }
    let tuned = collection == "tunedModels";
    let Some(segment) = rest.next() else {
        target.method = match (tuned, is_read(http)) {
            (true, _) => Method::TunedModels,
            (false, true) if collection == "models" => Method::ModelsList,
            _ => Method::Other,
        };
        return;
    };
    let (id, verb) = split_verb(segment);
    target.model =
        if collection == "models" { name(id) } else { name(id).map(|id| from.joined(&collection, id)) };
    target.method = match (verb, rest.next()) {
        (Some(verb), None) => Method::from_verb(&verb),
        (None, Some(next)) if next == "operations" => Method::Operations,
        (None, None) if collection == "models" && is_read(http) => Method::ModelsGet,
        _ => Method::Other,
    };
    if tuned && target.method == Method::Other {
        target.method = Method::TunedModels;
    }
}

/// What follows `projects/{p}/locations/{l}`, or in express mode the version.
fn vertex<'a>(target: &mut Target<'a>, mut rest: Segments<'a>, door: Door, http: Option<&http::Method>) {
    let from = rest.clone();
    let Some(resource) = rest.next() else { return };
    match &*resource {
        "publishers" => {
            target.publisher = rest.next().and_then(name);
            if rest.clone().next().is_some_and(|segment| segment == "models") {
                models(target, rest, http);
            }
        }
        "models" => models(target, from, http),
        "endpoints" => {
            let Some(segment) = rest.next() else { return };
            if segment == "openapi" {
                return openai(target, rest, door, http);
            }
            let (id, verb) = split_verb(segment);
            target.model = name(id).map(|id| from.joined("endpoints", id));
            match (verb, rest.clone().next()) {
                (Some(verb), None) => target.method = Method::from_verb(&verb),
                (None, Some(next)) if next == "chat" => openai(target, rest, door, http),
                (None, Some(next)) if next == "operations" => target.method = Method::Operations,
                _ => {}
            }
        }
        "interactions" => {
            target.surface = Surface::Interactions;
            interactions(target, rest, http);
        }
        "cachedContents" => target.method = Method::CachedContents,
        "batchPredictionJobs" => target.method = Method::Batches,
        "tuningJobs" => target.method = Method::TunedModels,
        "operations" => target.method = Method::Operations,
        _ => {}
    }
}

fn openai<'a>(target: &mut Target<'a>, mut rest: Segments<'a>, door: Door, http: Option<&http::Method>) {
    target.surface = Surface::OpenAi;
    let Some(resource) = rest.next() else { return };
    target.method = match &*resource {
        "chat" if rest.next().is_some_and(|next| next == "completions") && rest.next().is_none() => {
            Method::ChatCompletions
        }
        "embeddings" => Method::Embeddings,
        "models" => match rest.next() {
            Some(model) => {
                // This surface also lists its models by their full names.
                target.model = if model == "models" { rest.next().and_then(name) } else { name(model) };
                if is_read(http) { Method::ModelsGet } else { Method::Other }
            }
            None if is_read(http) => Method::ModelsList,
            None => Method::Other,
        },
        "files" => files(rest, door, http),
        "batches" => Method::Batches,
        _ => Method::Other,
    };
}

fn interactions<'a>(target: &mut Target<'a>, mut rest: Segments<'a>, http: Option<&http::Method>) {
    let Some(segment) = rest.next() else {
        if http.is_none_or(|http| http == http::Method::POST) {
            target.method = Method::InteractionsCreate;
        }
        return;
    };
    let (_, verb) = split_verb(segment);
    let action = verb.or_else(|| rest.next());
    target.method = match action.as_deref() {
        Some("cancel") => Method::InteractionsCancel,
        Some("stream") => {
            target.streaming = true;
            Method::InteractionsGet
        }
        None if is_read(http) => Method::InteractionsGet,
        None if is_delete(http) => Method::InteractionsDelete,
        _ => Method::Other,
    };
}

fn files(mut rest: Segments<'_>, door: Door, http: Option<&http::Method>) -> Method {
    if door == Door::Upload {
        return Method::FilesUpload;
    }
    let Some(segment) = rest.next() else {
        return match http {
            Some(http) if http == http::Method::POST => Method::FilesUpload,
            _ if is_read(http) => Method::FilesList,
            _ => Method::Other,
        };
    };
    let (_, verb) = split_verb(segment);
    match verb.as_deref() {
        Some("download") => Method::FilesDownload,
        None if is_delete(http) => Method::FilesDelete,
        None if is_read(http) && door == Door::Download => Method::FilesDownload,
        // The OpenAI-compatible surface spells the download `files/{id}/content`.
        None if is_read(http) => match rest.next() {
            Some(next) if next == "content" => Method::FilesDownload,
            Some(_) => Method::Other,
            None => Method::FilesGet,
        },
        _ => Method::Other,
    }
}

fn is_read(http: Option<&http::Method>) -> bool {
    http.is_none_or(|http| http == http::Method::GET || http == http::Method::HEAD)
}

fn is_delete(http: Option<&http::Method>) -> bool {
    http.is_some_and(|http| http == http::Method::DELETE)
}

#[derive(Clone, Copy, PartialEq)]
enum Version {
    Public,
    Internal,
}

/// `v1`, `v1beta`, `v1beta1`, `v1alpha`, `v1internal`, and the same for any other number.
fn version_kind(segment: &str) -> Option<Version> {
    let number = segment.as_bytes().strip_prefix(b"v")?;
    let is_digit = |b: &&u8| b.is_ascii_digit();
    let stage = &number[number.iter().take_while(is_digit).count()..];
    if stage.len() == number.len() {
        return None;
    }
    match &stage[..stage.len() - stage.iter().rev().take_while(is_digit).count()] {
        b"" | b"beta" | b"alpha" => Some(Version::Public),
        b"internal" => Some(Version::Internal),
        _ => None,
    }
}

/// `name:verb`, parted at the last colon.
fn split_verb(segment: Cow<'_, str>) -> (Cow<'_, str>, Option<Cow<'_, str>>) {
    let Some(colon) = memchr::memrchr(b':', segment.as_bytes()) else { return (segment, None) };
    match segment {
        Cow::Borrowed(s) => (Cow::Borrowed(&s[..colon]), Some(Cow::Borrowed(&s[colon + 1..]))),
        Cow::Owned(mut s) => {
            let verb = s.split_off(colon + 1);
            s.truncate(colon);
            (Cow::Owned(s), Some(Cow::Owned(verb)))
        }
    }
}

fn name(segment: Cow<'_, str>) -> Option<Cow<'_, str>> {
    is_name(&segment).then_some(segment)
}

/// Whether a decoded segment can be the name of a resource, and a log line can bear it.
pub(super) fn is_name(s: &str) -> bool {
    let is_alien = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '?' | '#' | '&' | '=');
    let is_plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'&' | b'=');
    // A name that is no ASCII is rare, and is read again by its characters.
    !s.is_empty()
        && s.len() <= MAX_NAME
        && (s.bytes().all(is_plain) || !s.is_ascii() && !s.contains(is_alien))
}

/// The segments of a path, percent-decoded, without the empty ones and the `.` ones.
#[derive(Clone)]
struct Segments<'a> {
    rest: &'a str,
    /// Whether there is no escape in it: then nothing is to be decoded.
    is_plain: bool,
}

impl<'a> Segments<'a> {
    fn of(path: &'a str) -> Self {
        Self { rest: path, is_plain: memchr::memchr(b'%', path.as_bytes()).is_none() }
    }

    /// `{collection}/{id}`, borrowed if the path, from here on, has just that.
    fn joined(&self, collection: &str, id: Cow<'a, str>) -> Cow<'a, str> {
        let here = self.rest.trim_start_matches('/');
        let tail = here.strip_prefix(collection).and_then(|tail| tail.strip_prefix('/'));
        match (&id, tail) {
            (Cow::Borrowed(id), Some(tail)) if tail.starts_with(id) => {
                Cow::Borrowed(&here[..collection.len() + 1 + id.len()])
            }
            _ => Cow::Owned(format!("{collection}/{id}")),
        }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let slash = match self.is_plain {
                true => memchr::memchr(b'/', self.rest.as_bytes()).map(|at| (at, 1)),
                false => slash(self.rest),
            };
            let segment = match slash {
                Some((at, len)) => {
                    let segment = &self.rest[..at];
                    self.rest = &self.rest[at + len..];
                    segment
                }
                None => std::mem::take(&mut self.rest),
            };
            if !segment.is_empty() && segment != "." {
                return Some(if self.is_plain { Cow::Borrowed(segment) } else { decode(segment) });
            }
        }
        None
    }
}

/// Where the next `/` or `%2F` is, and how long.
fn slash(s: &str) -> Option<(usize, usize)> {
    let bytes = s.as_bytes();
    memchr::memchr2_iter(b'/', b'%', bytes).find_map(|at| match &bytes[at..] {
        [b'/', ..] => Some((at, 1)),
        [b'%', b'2', b'F' | b'f', ..] => Some((at, 3)),
        _ => None,
    })
}

/// Percent-decodes once. What is no escape stays; what is no UTF-8 becomes U+FFFD.
fn decode(s: &str) -> Cow<'_, str> {
    let Some(first) = s.find('%') else { return Cow::Borrowed(s) };
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = s.as_bytes();
    let mut out = bytes[..first].to_vec();
    let mut at = first;
    while let Some(&byte) = bytes.get(at) {
        match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high << 4 | low).expect("two hexadecimal digits"));
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}
