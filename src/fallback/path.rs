//! The model in a path: the same URI with another one. Pure.

use http::Uri;
use http::uri::PathAndQuery;

use crate::request::Target;

/// In how many places of a path the name is looked for, from its end: a gateway's prefix may hold the same name.
const MAX_PLACES: usize = 8;

/// The URI with `to` where its path names the model `from`; every other byte stays.
///
/// What comes out is read again: `None` unless it asks for the same thing of the model `to`, as the path did of `from`.
pub(super) fn rewrite(uri: &Uri, from: &str, to: &str) -> Option<Uri> {
    let (before, path) = (Target::from_uri(uri), uri.path());
    if before.model() != Some(from) {
        return None;
    }
    places(path, from).take(MAX_PLACES).find_map(|(start, end)| {
        let (head, tail) = (&path[..start], &path[end..]);
        let query = uri.query().map_or(("", ""), |query| ("?", query));
        let whole = [head, to, tail, query.0, query.1].concat();
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(whole).ok()?);
        Uri::from_parts(parts).ok().filter(|uri| differs_in_model_alone(&before, &Target::from_uri(uri), to))
    })
}

fn differs_in_model_alone(before: &Target<'_>, after: &Target<'_>, to: &str) -> bool {
    let rest = |target: &Target<'_>| {
        let place = [target.project(), target.location(), target.publisher()].map(|s| s.map(str::to_owned));
        (target.surface(), target.method(), place, target.is_streaming())
    };
    after.model() == Some(to) && rest(before) == rest(after)
}

/// Where a segment, or the part of one before a colon, is this name, the last place first.
fn places<'a>(path: &'a str, name: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
    let bytes = path.as_bytes();
    (0..bytes.len()).rev().filter_map(move |start| {
        if !ends_with_slash(&bytes[..start]) {
            return None;
        }
        let end = start + length(&bytes[start..], name.as_bytes())?;
        ends_name(&bytes[end..]).then_some((start, end))
    })
}

/// How many bytes of `raw` spell `name`, some of them perhaps with percent signs.
fn length(raw: &[u8], name: &[u8]) -> Option<usize> {
    let mut at = 0;
    for &expected in name {
        let hex = |byte: u8| char::from(byte).to_digit(16);
        let (byte, len) = match raw.get(at..)? {
            [b'%', high, low, ..] => (u8::try_from(hex(*high)? << 4 | hex(*low)?).ok()?, 3),
            [byte, ..] => (*byte, 1),
            [] => return None,
        };
        if byte != expected {
            return None;
        }
        at += len;
    }
    Some(at)
}

fn ends_with_slash(before: &[u8]) -> bool {
    matches!(before, [.., b'/'] | [.., b'%', b'2', b'F' | b'f'])
}

fn ends_name(after: &[u8]) -> bool {
    matches!(after, [] | [b'/' | b':', ..] | [b'%', b'2', b'F' | b'f', ..] | [b'%', b'3', b'A' | b'a', ..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to(uri: &str, from: &str, to: &str) -> Option<String> {
        rewrite(&uri.parse().expect("a URI"), from, to).map(|uri| uri.to_string())
    }

    #[test]
    fn only_the_model_of_a_path_changes() {
        const PLACE: &str = "/v1/projects/p/locations/l/publishers/google/models";
        for (before, after) in [
            ("/v1beta/models/a-1:generateContent", "/v1beta/models/b:generateContent"),
            (
                "https://h:1/x/v1/models/a-1:streamGenerateContent?alt=sse&key=a-1",
                "https://h:1/x/v1/models/b:streamGenerateContent?alt=sse&key=a-1",
            ),
            ("/a-1/v1beta/models/a-1:generateContent?", "/a-1/v1beta/models/b:generateContent?"),
            ("//v1beta/./models//a-1%3AgenerateContent", "//v1beta/./models//b%3AgenerateContent"),
            ("/v1beta/models%2Fa%2D1:generateContent", "/v1beta/models%2Fb:generateContent"),
            (&format!("{PLACE}/a-1:generateContent"), &format!("{PLACE}/b:generateContent")),
            (
                "/v1/publishers/google/models/a-1:generateContent",
                "/v1/publishers/google/models/b:generateContent",
            ),
        ] {
            assert_eq!(to(before, "a-1", "b").as_deref(), Some(after));
        }
    }

    #[test]
    fn the_name_is_found_where_it_is_the_model_among_all_that_look_like_it() {
        // Another name in the last place would leave the model as it is.
        assert_eq!(
            to("/v1beta/models/a-1:generateContent/a-1", "a-1", "b").as_deref(),
            Some("/v1beta/models/b:generateContent/a-1")
        );
        // What only begins or ends with the name is not one of the eight places.
        for near in ["/xa", "/ax"] {
            let tail = near.repeat(MAX_PLACES + 1);
            let after = to(&format!("/v1beta/models/a:generateContent{tail}"), "a", "b");
            assert_eq!(after, Some(format!("/v1beta/models/b:generateContent{tail}")));
        }
    }

    #[test]
    fn a_path_that_does_not_name_it_gives_nothing() {
        for path in [
            "/",
            "/v1beta/models/a-12:generateContent",
            "/v1beta/tunedModels/a-1:generateContent",
            "/a-1/v1beta/files",
        ] {
            assert_eq!(to(path, "a-1", "b"), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_model_that_was_read_is_replaced_where_it_stands(
            head in "(/[a-z0-9.-]{1,8}){0,3}",
            middle in "(/v1/projects/p/locations/l/publishers/google|/v1beta|//v1/\\.)",
            verb in "(:generateContent|:streamGenerateContent|%3AgenerateContent)",
            query in "(\\?[a-z=&/:.-]{0,12})?",
            name in "[a-z0-9.@_-]{1,12}",
            new in "[a-z0-9@_-]{1,12}",
        ) {
            let with = |model: &str| format!("{head}{middle}/models/{model}{verb}{query}");
            let uri: Uri = with(&name).parse().expect("a URI");
            if Target::from_uri(&uri).model() == Some(&*name) {
                prop_assert_eq!(rewrite(&uri, &name, &new).map(|uri| uri.to_string()), Some(with(&new)));
            } else {
                // A gateway's prefix that looks like the API, or a name that is no segment.
                prop_assert!(name == "." || !head.is_empty(), "{}", uri);
            }
        }

        #[test]
        fn any_path_keeps_all_but_the_model(
            head in "(/[a-z0-9%:.-]{0,8}){0,3}",
            tail in "(/[a-zA-Z:%]{0,6}|:[a-zA-Z]{0,22}|%3A[a-zA-Z]{0,22}){0,2}(\\?[a-z=&]{0,10})?",
            name in "[a-z0-9.@_-]{1,12}",
            new in "[a-z0-9.@_-]{1,12}",
        ) {
            let text = format!("{head}/v1beta/models/{name}{tail}");
            let Ok(uri) = text.parse::<Uri>() else { return Ok(()) };
            let Some(after) = rewrite(&uri, &name, &new) else { return Ok(()) };
            let (old, fresh) = (Target::from_uri(&uri), Target::from_uri(&after));
            prop_assert_eq!(fresh.model(), Some(&*new));
            prop_assert_eq!((old.surface(), old.method()), (fresh.surface(), fresh.method()));
            prop_assert_eq!(uri.query(), after.query());
            // Taken out again, it is the same path.
            prop_assert_eq!(rewrite(&after, &new, &name).map(|uri| Target::from_uri(&uri).to_string()), Some(old.to_string()));
        }
    }
}
